output "emails" {
  description = "The service accounts' addresses: nodes, jobs, api, batch, dataflow, composer."
  value       = local.email
}

output "names" {
  description = "The service accounts as projects/…/serviceAccounts/…, by the same names."
  value       = local.name
}

output "node_service_account" {
  description = "The nodes' address, known once it may do what nodes do: without, new nodes would not join."
  value       = local.email["nodes"]
  depends_on = [
    google_project_iam_member.this,
    google_artifact_registry_repository_iam_member.this,
  ]
}
