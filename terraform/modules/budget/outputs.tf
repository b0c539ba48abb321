output "budget" {
  description = "The budget's name at the billing account."
  value       = google_billing_budget.this.name
}
