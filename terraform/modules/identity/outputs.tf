output "emails" {
  description = "The service accounts' addresses: nodes, jobs, api, batch, dataflow, composer."
  value       = { for name, account in google_service_account.this : name => account.email }
}

output "names" {
  description = "The service accounts as projects/…/serviceAccounts/…, by the same names."
  value       = { for name, account in google_service_account.this : name => account.name }
}

output "node_service_account" {
  description = "The nodes' address, known once it may do what nodes do: without, new nodes would not join."
  value       = google_service_account.this["nodes"].email
  depends_on = [
    google_project_iam_member.this,
    google_artifact_registry_repository_iam_member.this,
  ]
}
