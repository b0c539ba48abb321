variable "project_id" {
  description = "The Google Cloud project of network and cluster."
  type        = string
}

variable "region" {
  description = "Where both are."
  type        = string
  default     = "europe-west1"
}

variable "network" {
  description = "The network's name."
  type        = string
}

variable "subnetwork" {
  description = "The subnetwork of the cluster's nodes."
  type        = string
}

variable "ranges" {
  description = "Address ranges of the network and the cluster."
  type = object({
    nodes            = string
    pods             = string
    services         = string
    private_services = string
    control_plane    = string
  })
}

variable "cluster" {
  description = "The cluster's name."
  type        = string
}

variable "kafka_bootstrap_servers" {
  description = "Kafka's addresses, host:port[,host:port]."
  type        = string
}

variable "kafka_namespaces" {
  description = "The namespaces of the cluster that Kafka and the schema registry run in."
  type        = list(string)
}
