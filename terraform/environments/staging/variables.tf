variable "project_id" {
  description = "The Google Cloud project of this environment, which exists and is paid for."
  type        = string
}

variable "region" {
  description = "Where everything runs."
  type        = string
  default     = "europe-west1"
}

variable "authorized_networks" {
  description = "Who reaches the cluster's control plane: ranges by a name for each. None: only from inside the network."
  type        = map(string)
  default     = {}
}

variable "kafka_bootstrap_servers" {
  description = "The addresses of an existing Kafka, unless managed_kafka."
  type        = string
  default     = null

  validation {
    condition     = (var.kafka_bootstrap_servers == null) == var.managed_kafka
    error_message = "One of kafka_bootstrap_servers and managed_kafka must be set, and not both."
  }
}

variable "kafka_peers" {
  description = "Where that Kafka's brokers are, for the chart's network policies: ranges, or namespaces of the cluster. Neither: the nodes' range."
  type = object({
    cidrs      = optional(list(string))
    namespaces = optional(list(string), [])
  })
  default = {}
}

variable "managed_kafka" {
  description = "Whether Google's managed Kafka is made. Jobs and API log in to it as their service accounts."
  type        = bool
  default     = false
}

variable "github_repository" {
  description = "OWNER/NAME at GitHub whose workflows may push images and templates, without a key. null: none may."
  type        = string
  default     = null
}

variable "labels" {
  description = "More labels, such as a cost centre."
  type        = map(string)
  default     = {}
}

variable "billing_account" {
  description = "The billing account that pays for the project. null: no budget is made."
  type        = string
  default     = null
}

variable "monthly_budget" {
  description = "What a month may cost, in the billing account's currency."
  type        = number
  default     = 1500
}

variable "alert_emails" {
  description = "Who is told of costs."
  type        = list(string)
  default     = []
}
