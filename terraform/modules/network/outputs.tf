output "network_id" {
  description = "The network."
  value       = google_compute_network.this.id
}

output "subnetwork_id" {
  description = "The subnetwork, as projects/…/regions/…/subnetworks/…"
  value       = google_compute_subnetwork.this.id
}

output "pods_range" {
  description = "The name of the pods' range."
  value       = "pods"
  depends_on  = [google_compute_subnetwork.this]
}

output "services_range" {
  description = "The name of the services' range."
  value       = "services"
  depends_on  = [google_compute_subnetwork.this]
}

output "private_services_network_id" {
  description = "The network, known once Google's services can be connected to it."
  value       = google_compute_network.this.id
  depends_on  = [google_service_networking_connection.this]
}
