output "helm_values" {
  description = "A values file for the chart: terraform output -raw helm_values."
  value       = module.platform.helm_values
}
