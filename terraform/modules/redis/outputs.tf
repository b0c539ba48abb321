output "url" {
  description = "The store's address inside the network, without its password."
  value       = "rediss://${google_redis_instance.this.host}:${google_redis_instance.this.port}/0"
}

output "secret_ids" {
  description = "The names of the secrets with the store's URL (streamforge-redis-url), its password alone (streamforge-redis-password) and its authorities' certificates (streamforge-redis-ca)."
  value       = { for name, secret in google_secret_manager_secret.this : name => secret.secret_id }
  depends_on  = [google_secret_manager_secret_version.this]
}
