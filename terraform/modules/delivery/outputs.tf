output "service_account" {
  description = "The address that workflows get a token for."
  value       = local.email
}

output "provider" {
  description = "The provider's name, for the workflow's step that gets a token."
  value       = google_iam_workload_identity_pool_provider.github.name
}
