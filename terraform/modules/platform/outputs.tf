output "cluster" {
  description = "The cluster's name: gcloud container clusters get-credentials NAME --region=REGION."
  value       = var.existing_cluster == null ? module.gke[0].name : var.existing_cluster.name
}

output "image_prefix" {
  description = "The chart's image registry: what comes before an image's name."
  value       = module.registry.prefix
}

output "kafka_bootstrap_servers" {
  description = "Kafka's addresses."
  value       = module.kafka.bootstrap_servers
}

output "kafka_topics" {
  description = "The topics, with their own settings: to be made by hand on a Kafka that is not managed here."
  value       = module.kafka.topics
}

output "helm_values" {
  description = "A values file for the chart, as YAML: all that both have to agree on. Before any values file of yours."
  value       = yamlencode(local.helm_values)
}

output "redis_secrets" {
  description = "The secrets of Secret Manager with Redis's URL and the certificates of its authorities; none without Redis."
  value       = merge(module.redis[*].secret_ids...)
}

output "bigquery_url" {
  description = "The jobs' --output for BigQuery."
  value       = module.bigquery.url
}

output "buckets" {
  description = "The buckets' names, by what they hold."
  value       = module.storage.buckets
}

output "service_accounts" {
  description = "The service accounts' addresses; the chart annotates its own with iam.gke.io/gcp-service-account."
  value       = module.identity.emails
}

output "workload_identities" {
  description = "Which pods speak for a service account: the bindings that were made."
  value       = module.workload_identity.members
}

output "subnetwork" {
  description = "For Dataflow's --subnetwork, as projects/…/regions/…/subnetworks/…"
  value       = local.network.subnetwork_id
}

output "daily_analytics" {
  description = "The Airflow variable daily_analytics, as JSON."
  value       = module.batch.daily_analytics
}

output "delivery" {
  description = "The service account and the provider that GitHub's workflows take; null without github_repository."
  value       = one([for each in module.delivery : { service_account = each.service_account, provider = each.provider }])
}
