output "name" {
  description = "The cluster's name."
  value       = google_container_cluster.this.name
}

output "workload_pool" {
  description = "The project's pool of workload identities. It does not exist before the project's first cluster does."
  value       = google_container_cluster.this.workload_identity_config[0].workload_pool
  depends_on  = [google_container_cluster.this]
}

output "deletion_protection" {
  description = "Whether the cluster cannot be destroyed."
  value       = google_container_cluster.this.deletion_protection
}
