output "project_id" {
  description = "The project's id, known once all its services are on."
  value       = var.project_id
  depends_on  = [google_project_service.this]
}
