variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "pool_id" {
  description = "The identity pool's name. A destroyed pool keeps its name for 30 days: undelete it, or take another."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]{4,32}$", var.pool_id)) && !startswith(var.pool_id, "gcp-")
    error_message = "pool_id must be 4 to 32 of a-z, 0-9 and -, not beginning with gcp-."
  }
}

variable "github_repository" {
  description = "The repository whose workflows on main and on tags v* may push: OWNER/NAME."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository must be OWNER/NAME."
  }
}

variable "registry" {
  description = "The repository of images, and its region."
  type = object({
    repository = string
    location   = string
  })
}

variable "templates_bucket" {
  description = "The bucket of templates and code."
  type        = string
}
