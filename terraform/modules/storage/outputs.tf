output "project_number" {
  description = "The project's number, as Google answers with a bucket. The data source google_project would ask Cloud Billing, too, while it may not be on yet."
  value       = google_storage_bucket.this["state"].project_number
}

output "buckets" {
  description = "The buckets' names, by what they hold: state, archive, lakehouse, templates, scratch."
  value       = { for name, bucket in google_storage_bucket.this : name => bucket.name }
}
