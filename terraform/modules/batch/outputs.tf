output "daily_analytics" {
  description = "The Airflow variable `daily_analytics`, as JSON."
  value       = jsonencode(local.daily_analytics)
}
