variable "project_id" {
  description = "The Google Cloud project's id; the buckets' names begin with it."
  type        = string
}

variable "location" {
  description = "Of the buckets: a region, the cluster's, or traffic between regions is paid for."
  type        = string
}

variable "labels" {
  description = "On everything that takes labels."
  type        = map(string)
}

variable "retention_days" {
  description = "Days after which a file is deleted, or as Iceberg's moved to Nearline."
  type = object({
    checkpoints         = optional(number, 7)
    savepoints          = optional(number, 90)
    dead_letters        = optional(number, 30)
    iceberg_to_nearline = optional(number, 30)
    scratch             = optional(number, 14)
  })
  default = {}

  validation {
    condition     = alltrue([for days in values(var.retention_days) : days >= 1 && floor(days) == days])
    error_message = "retention_days must be whole days, at least 1."
  }

  validation {
    condition     = var.retention_days.checkpoints >= 2
    error_message = "retention_days.checkpoints must be at least 2: a full checkpoint is made once a day."
  }

  validation {
    condition     = var.retention_days.savepoints >= var.retention_days.checkpoints
    error_message = "retention_days.savepoints must not be less than those of checkpoints."
  }
}

variable "deletion_protection" {
  description = "Whether a bucket that holds files cannot be destroyed."
  type        = bool
}
