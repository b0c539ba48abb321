# Google has no deletion protection for this cluster, and its topics are all there is of records that nobody has read.
# Destroying or replacing the cluster takes this along, which Terraform refuses. docs/terraform.md says how to go on then.

resource "terraform_data" "guard" {
  count = var.deletion_protection && var.managed != null ? 1 : 0

  lifecycle {
    prevent_destroy      = true
    replace_triggered_by = [google_managed_kafka_cluster.this["this"].id]
  }
}
