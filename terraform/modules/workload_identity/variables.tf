variable "workload_pool" {
  description = "The pool, from the cluster: taken from there, so that it exists."
  type        = string
}

variable "namespace" {
  description = "The Kubernetes namespace of the service accounts."
  type        = string
  default     = "streamforge"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a Kubernetes name: a-z, 0-9 and -, at most 63."
  }
}

variable "accounts" {
  description = "Google's service accounts (projects/…/serviceAccounts/…) by the name of the Kubernetes one."
  type        = map(string)
}
