output "name" {
  description = "The cluster's name."
  value       = google_container_cluster.this.name
}

output "workload_pool" {
  description = "The project's pool of workload identities. It does not exist before the project's first cluster does."
  value       = "${google_container_cluster.this.project}.svc.id.goog"
  depends_on  = [google_container_cluster.this]
}
