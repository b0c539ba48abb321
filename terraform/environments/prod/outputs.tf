output "platform" {
  description = "All that the chart, the templates and the DAG have to be told."
  value       = module.platform
}

output "helm_values" {
  description = "A values file for the chart: terraform output -raw helm_values."
  value       = module.platform.helm_values
}
