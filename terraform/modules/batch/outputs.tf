output "daily_analytics" {
  description = "The Airflow variable `daily_analytics`, as JSON."
  value       = jsonencode(local.daily_analytics)
}

output "archive" {
  description = "The archive's folder: the jobs write it, the batch reads it."
  value       = local.archive
}

output "report" {
  description = "The folder of the batch's reports, which the API reads."
  value       = local.report
}
