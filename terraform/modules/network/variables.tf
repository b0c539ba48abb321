variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "region" {
  description = "Where the subnetwork lies."
  type        = string
}

variable "name" {
  description = "Of the network and what belongs to it."
  type        = string
  default     = "streamforge"
}

variable "labels" {
  description = "On everything that takes labels."
  type        = map(string)
}

variable "nodes_cidr" {
  description = "Addresses of nodes and of Dataproc's and Dataflow's workers."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.nodes_cidr))
    error_message = "nodes_cidr must be an IPv4 range such as 10.10.0.0/20."
  }
}

variable "pods_cidr" {
  description = "Addresses of pods; Autopilot takes 64 to a node."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.pods_cidr))
    error_message = "pods_cidr must be an IPv4 range such as 10.20.0.0/16."
  }
}

variable "services_cidr" {
  description = "Addresses of Kubernetes services."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.services_cidr))
    error_message = "services_cidr must be an IPv4 range such as 10.30.0.0/20."
  }
}

variable "private_services_cidr" {
  description = "Addresses for services that Google runs in a network of its own: Memorystore."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.private_services_cidr))
    error_message = "private_services_cidr must be an IPv4 range such as 10.40.0.0/20."
  }
}

variable "flow_log_sampling" {
  description = "The share of the subnetwork's connections that are logged, 0 to 1."
  type        = number
  default     = 0.1

  validation {
    condition     = var.flow_log_sampling >= 0 && var.flow_log_sampling <= 1
    error_message = "flow_log_sampling must be from 0 to 1."
  }
}

variable "worker_service_accounts" {
  description = "Whose machines may reach each other, by a short name, and on which ports of which protocols."
  type = map(object({
    service_account = string
    allow           = map(list(string))
  }))
  default = {}
}
