variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "region" {
  description = "Of the cluster; its control plane is in three zones of it."
  type        = string
}

variable "name" {
  description = "The cluster's name."
  type        = string
  default     = "streamforge"
}

variable "labels" {
  description = "On everything that takes labels."
  type        = map(string)
}

variable "network_id" {
  description = "The network it lies in."
  type        = string
}

variable "subnetwork_id" {
  description = "The subnetwork of its nodes."
  type        = string
}

variable "pods_range" {
  description = "The name of the subnetwork's range for pods."
  type        = string
}

variable "services_range" {
  description = "The name of the subnetwork's range for services."
  type        = string
}

variable "control_plane_cidr" {
  description = "The control plane's addresses: a /28 that nothing else uses."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.control_plane_cidr)) && endswith(var.control_plane_cidr, "/28")
    error_message = "control_plane_cidr must be an IPv4 range of size /28 such as 172.16.0.0/28."
  }
}

variable "dns_endpoint" {
  description = "Whether the control plane's DNS name answers from anywhere, to whom IAM lets in."
  type        = bool
}

variable "authorized_networks" {
  description = "Who reaches the control plane: ranges by a name for each. None: only from inside the network."
  type        = map(string)

  validation {
    condition     = alltrue([for cidr in values(var.authorized_networks) : can(cidrnetmask(cidr))])
    error_message = "authorized_networks must be IPv4 ranges such as 203.0.113.0/24, by a name for each."
  }

  validation {
    condition     = alltrue([for cidr in values(var.authorized_networks) : !endswith(cidr, "/0")])
    error_message = "authorized_networks must not hold the whole internet."
  }
}

variable "node_service_account" {
  description = "The address of the service account that nodes run as."
  type        = string
}

variable "release_channel" {
  description = "How soon new versions of Kubernetes come: RAPID, REGULAR or STABLE."
  type        = string
  default     = "REGULAR"

  validation {
    condition     = contains(["RAPID", "REGULAR", "STABLE"], var.release_channel)
    error_message = "release_channel must be RAPID, REGULAR or STABLE."
  }
}

variable "binary_authorization" {
  description = "Whether the project's policy decides which images may run. The policy is the project's, not made here."
  type        = bool
  default     = false
}

variable "rbac_security_group" {
  description = "The Workspace group gke-security-groups@DOMAIN, whose groups Kubernetes' roles can then be bound to; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.rbac_security_group == null ? true : startswith(var.rbac_security_group, "gke-security-groups@")
    error_message = "rbac_security_group must be gke-security-groups@DOMAIN."
  }
}

variable "maintenance_start" {
  description = "When upgrades may begin, UTC, Tuesday to Thursday; they have four hours."
  type        = string
  default     = "08:00"

  validation {
    condition     = can(regex("^(0[0-9]|1[0-9]):[0-5][0-9]$", var.maintenance_start))
    error_message = "maintenance_start must be a time from 00:00 to 19:59."
  }
}

variable "deletion_protection" {
  description = "Whether the cluster cannot be destroyed."
  type        = bool
}
