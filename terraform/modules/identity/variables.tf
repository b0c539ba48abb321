variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "project_number" {
  description = "The Google Cloud project's number, which Google's own service accounts are named for."
  type        = number
}

variable "buckets" {
  description = "The buckets' names, by what they hold."
  type        = map(string)

  validation {
    condition     = length(setsubtract(["state", "archive", "lakehouse", "templates", "scratch"], keys(var.buckets))) == 0
    error_message = "buckets must name state, archive, lakehouse, templates and scratch."
  }
}

variable "dataset_id" {
  description = "The BigQuery dataset."
  type        = string
}

variable "registry" {
  description = "The repository of images, and its region."
  type = object({
    repository = string
    location   = string
  })
}

variable "redis_secret_ids" {
  description = "The secrets that tell how to reach Redis, by a name for each."
  type        = map(string)
}
