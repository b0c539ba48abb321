output "buckets" {
  description = "The buckets' names, by what they hold: state, archive, lakehouse, templates, scratch."
  value       = { for name, bucket in google_storage_bucket.this : name => bucket.name }
}
