variable "project_id" {
  description = "The Google Cloud project's id. An environment has a project of its own."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project's id: 6 to 30 of a-z, 0-9 and -."
  }
}

variable "region" {
  description = "Where everything runs, such as europe-west1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region such as europe-west1."
  }
}

variable "environment" {
  description = "dev, staging or prod; a label, and prod has to be protected."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "environment must be dev, staging or prod."
  }
}

variable "labels" {
  description = "More labels, such as a cost centre."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "Whether cluster, tables and buckets that hold something cannot be destroyed."
  type        = bool

  validation {
    condition     = var.deletion_protection || var.environment != "prod"
    error_message = "deletion_protection must be true in prod."
  }
}

variable "authorized_networks" {
  description = "Who reaches the cluster's control plane: ranges by a name for each. None: only from inside the network."
  type        = map(string)
  default     = {}
}

variable "network" {
  description = "Address ranges, where the defaults are taken: the chart's network policies are made of them. postgres_cidrs: of the shop's database, Cloud SQL's if not said. And the share of connections that is logged."
  type = object({
    nodes_cidr            = optional(string, "10.10.0.0/20")
    pods_cidr             = optional(string, "10.20.0.0/16")
    services_cidr         = optional(string, "10.30.0.0/20")
    private_services_cidr = optional(string, "10.40.0.0/20")
    control_plane_cidr    = optional(string, "172.16.0.0/28")
    postgres_cidrs        = optional(list(string))
    flow_log_sampling     = optional(number, 0.1)
  })
  default = {}
}

variable "existing_network" {
  description = "A network to be used instead of one that is made, with private services access; its ranges are said by network. null: one is made."
  type = object({
    network_id     = string
    subnetwork_id  = string
    pods_range     = optional(string)
    services_range = optional(string)
  })
  default = null
}

variable "existing_cluster" {
  description = "A cluster to be used instead of one that is made, with Workload Identity (workload_pool: PROJECT.svc.id.goog). null: one is made."
  type = object({
    name          = string
    workload_pool = string
  })
  default = null

  validation {
    condition     = var.existing_cluster == null || var.existing_network != null
    error_message = "existing_cluster must come with existing_network: it lies in one."
  }
}

variable "dns_endpoint" {
  description = "Whether the control plane's DNS name answers from anywhere, to whom IAM lets in (container.clusters.connect)."
  type        = bool
  default     = true
}

variable "release_channel" {
  description = "How soon new versions of Kubernetes come: RAPID, REGULAR or STABLE."
  type        = string
  default     = "REGULAR"
}

variable "binary_authorization" {
  description = "Whether the project's policy decides which images may run."
  type        = bool
  default     = false
}

variable "rbac_security_group" {
  description = "The Workspace group gke-security-groups@DOMAIN, whose groups Kubernetes' roles can then be bound to; null: none."
  type        = string
  default     = null
}

variable "maintenance_start" {
  description = "When the cluster's upgrades may begin, UTC, Tuesday to Thursday."
  type        = string
  default     = "08:00"
}

variable "namespace" {
  description = "The Kubernetes namespace that the chart is installed into."
  type        = string
  default     = "streamforge"
}

variable "redis" {
  description = "The online store: BASIC or STANDARD_HA, its size, and whether it is written to disk. null: none, the chart runs one."
  type = object({
    tier      = string
    memory_gb = number
    snapshots = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.environment != "prod" || try(var.redis.tier == "STANDARD_HA", false)
    error_message = "redis.tier must be STANDARD_HA in prod."
  }
}

variable "kafka" {
  description = "Either managed, the size of Google's Kafka, or bootstrap_servers, the address of another, with where its brokers are: cidrs (the nodes' range if not said) or the cluster's namespaces."
  type = object({
    managed = optional(object({
      vcpus          = optional(number, 3)
      memory_gb      = optional(number, 12)
      partitions     = optional(number, 4)
      retention_days = optional(number, 7)
    }))
    bootstrap_servers = optional(string)
    cidrs             = optional(list(string))
    namespaces        = optional(list(string), [])
  })
}

variable "bigquery" {
  description = "The dataset's name; its location, the region if not said; days after which rows are deleted, never if not said."
  type = object({
    dataset_id                = optional(string, "streamforge")
    location                  = optional(string)
    partition_expiration_days = optional(number)
  })
  default = {}
}

variable "retention_days" {
  description = "Days after which files are deleted, or as Iceberg's moved to Nearline."
  type = object({
    checkpoints         = optional(number, 7)
    savepoints          = optional(number, 90)
    dead_letters        = optional(number, 30)
    iceberg_to_nearline = optional(number, 30)
    scratch             = optional(number, 14)
  })
  default = {}
}

variable "immutable_image_tags" {
  description = "Whether an image's tag, once pushed, stays what it is."
  type        = bool
  default     = true
}

variable "budget" {
  description = "What a month may cost and who is told. null: nobody is."
  type = object({
    billing_account = string
    amount          = number
    alert_emails    = list(string)
  })
  default = null

  validation {
    condition     = var.environment != "prod" || var.budget != null
    error_message = "budget must be set in prod."
  }
}

variable "delivery_pool_id" {
  description = "The name of the identity pool for those workflows. Google keeps a destroyed one's name for 30 days."
  type        = string
  default     = "streamforge-delivery"
}

variable "github_repository" {
  description = "OWNER/NAME at GitHub whose workflows may push images and templates, without a key. null: none may."
  type        = string
  default     = null
}
