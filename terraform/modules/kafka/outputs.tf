output "bootstrap_servers" {
  description = "Kafka's addresses, for the jobs' --input and the API."
  value       = var.managed == null ? var.bootstrap_servers : "bootstrap.${google_managed_kafka_cluster.this["this"].cluster_id}.${var.region}.managedkafka.${var.project_id}.cloud.goog:9092"
}

output "topics" {
  description = "The topics that are there, or have to be made on an existing Kafka, with their own settings."
  value       = local.topics
  depends_on  = [google_managed_kafka_topic.this]
}
