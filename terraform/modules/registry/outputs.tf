output "repository" {
  description = "The repository's name within the project."
  value       = google_artifact_registry_repository.this.repository_id
}

output "location" {
  description = "The repository's region."
  value       = google_artifact_registry_repository.this.location
}

output "prefix" {
  description = "What comes before an image's name: REGION-docker.pkg.dev/PROJECT/streamforge."
  value       = "${google_artifact_registry_repository.this.location}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.this.repository_id}"
}
