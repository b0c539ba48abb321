output "dataset_id" {
  description = "The dataset's name."
  value       = google_bigquery_dataset.this.dataset_id
}

output "url" {
  description = "What the jobs take as --output. Known once the tables are there, as a job refuses to start without."
  value       = "bigquery://${var.project_id}.${google_bigquery_dataset.this.dataset_id}"
  depends_on  = [google_bigquery_table.tables, google_bigquery_table.views]
}
