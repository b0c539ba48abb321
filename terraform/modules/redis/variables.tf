variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "region" {
  description = "Where it runs."
  type        = string
}

variable "labels" {
  description = "On everything that takes labels."
  type        = map(string)
}

variable "network_id" {
  description = "The network it is reached from, which has to be connected to Google's services."
  type        = string
}

variable "tier" {
  description = "BASIC: one node, empty after its failure. STANDARD_HA: a second one in another zone takes over."
  type        = string

  validation {
    condition     = contains(["BASIC", "STANDARD_HA"], var.tier)
    error_message = "tier must be BASIC or STANDARD_HA."
  }
}

variable "memory_gb" {
  description = "The store's size."
  type        = number

  validation {
    condition     = var.memory_gb >= 1 && var.memory_gb <= 300 && floor(var.memory_gb) == var.memory_gb
    error_message = "memory_gb must be a whole number from 1 to 300."
  }
}

variable "snapshots" {
  description = "Whether the store is written to disk twice a day, to come back with that after both nodes are lost."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Whether the store cannot be destroyed or replaced."
  type        = bool
}
