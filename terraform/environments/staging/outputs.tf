output "platform" {
  description = "All that the chart, the templates and the DAG have to be told."
  value       = module.platform
}
