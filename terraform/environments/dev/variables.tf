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
  description = "The addresses of an existing Kafka. null: Google's managed one is made."
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
  default     = 500
}

variable "alert_emails" {
  description = "Who is told of costs."
  type        = list(string)
  default     = []
}
