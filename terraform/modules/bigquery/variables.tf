variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "dataset_id" {
  description = "The dataset's name, as in the jobs' --output=bigquery://project.dataset."
  type        = string
  default     = "streamforge"

  validation {
    condition     = can(regex("^[A-Za-z0-9_]+$", var.dataset_id))
    error_message = "dataset_id must be letters, digits and _."
  }
}

variable "location" {
  description = "Of the dataset: a region, or EU or US. It cannot be changed later."
  type        = string
}

variable "labels" {
  description = "On everything that takes labels."
  type        = map(string)
}

variable "partition_expiration_days" {
  description = "Days after which a day of a table is deleted; null: never."
  type        = number
  default     = null

  validation {
    condition     = var.partition_expiration_days == null ? true : var.partition_expiration_days >= 2
    error_message = "partition_expiration_days must be at least 2: the daily batch reads the day before."
  }
}

variable "deletion_protection" {
  description = "Whether tables, and a dataset that holds some, cannot be destroyed."
  type        = bool
}
