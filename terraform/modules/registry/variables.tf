variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "region" {
  description = "Where the images lie: near the cluster that pulls them."
  type        = string
}

variable "labels" {
  description = "On everything that takes labels."
  type        = map(string)
}

variable "immutable_tags" {
  description = "Whether a tag, once pushed, stays what it is."
  type        = bool
  default     = true
}
