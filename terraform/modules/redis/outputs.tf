output "host" {
  description = "The store's address inside the network."
  value       = google_redis_instance.this.host
}

output "port" {
  description = "The store's port; it speaks TLS there."
  value       = google_redis_instance.this.port
}

output "secret_ids" {
  description = "The names of the secrets with the store's URL (streamforge-redis-url) and its authorities' certificates (streamforge-redis-ca)."
  value       = { for name, secret in google_secret_manager_secret.this : name => secret.secret_id }
  depends_on  = [google_secret_manager_secret_version.this]
}
