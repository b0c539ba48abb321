variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
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
