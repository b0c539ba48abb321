variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "region" {
  description = "Where the DAG's clusters run."
  type        = string
}

variable "buckets" {
  description = "The buckets' names, by what they hold."
  type        = map(string)
}

variable "bigquery_url" {
  description = "The stream's tables, as bigquery://project.dataset."
  type        = string
}

variable "service_account" {
  description = "The address that clusters run as."
  type        = string
}

variable "subnetwork_id" {
  description = "The subnetwork of the clusters, as projects/…/regions/…/subnetworks/…"
  type        = string
}

variable "namespace" {
  description = "Of the Iceberg tables."
  type        = string
  default     = "analytics"
}

variable "jars" {
  description = "Files in templates/batch that the cluster's image lacks."
  type        = list(string)
  default     = ["iceberg-spark-runtime-3.5_2.12-1.10.1.jar", "iceberg-gcp-bundle-1.10.1.jar"]
}
