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

variable "subnetwork_id" {
  description = "The subnetwork that it is reached from."
  type        = string
}

variable "managed" {
  description = "The managed cluster's size, and its topics'. null: none, see bootstrap_servers."
  type = object({
    vcpus          = optional(number, 3)
    memory_gb      = optional(number, 12)
    partitions     = optional(number, 4)
    retention_days = optional(number, 7)
  })
  default = null

  validation {
    condition     = var.managed == null ? true : var.managed.vcpus >= 3
    error_message = "managed.vcpus must be at least 3."
  }

  validation {
    condition     = var.managed == null ? true : var.managed.memory_gb >= var.managed.vcpus && var.managed.memory_gb <= 8 * var.managed.vcpus
    error_message = "managed.memory_gb must be 1 to 8 for each vCPU."
  }

  validation {
    condition     = var.managed == null ? true : var.managed.partitions >= 1 && var.managed.partitions <= 128
    error_message = "managed.partitions must be from 1 to 128, a job's number of shards."
  }
}

variable "bootstrap_servers" {
  description = "The addresses of an existing Kafka, host:port[,host:port]; null with a managed one."
  type        = string
  default     = null

  validation {
    condition     = var.bootstrap_servers == null ? true : can(regex("^[A-Za-z0-9.-]+:[0-9]+(,[A-Za-z0-9.-]+:[0-9]+)*$", var.bootstrap_servers))
    error_message = "bootstrap_servers must be host:port[,host:port]."
  }

  validation {
    condition     = (var.bootstrap_servers == null) != (var.managed == null)
    error_message = "One of kafka's managed and bootstrap_servers must be set, and not both."
  }
}

variable "deletion_protection" {
  description = "Whether the managed cluster cannot be destroyed or replaced."
  type        = bool
}
