output "members" {
  description = "Who was bound, by the name of the Kubernetes service account."
  value       = { for name, binding in google_service_account_iam_member.this : name => binding.member }
}
