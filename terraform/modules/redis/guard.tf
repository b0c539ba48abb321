# This provider knows no deletion protection for Redis. Destroying or replacing it takes this along, which Terraform
# refuses: an empty online store is an outage until the jobs have read their topics again. docs/terraform.md says how to
# go on then.

resource "terraform_data" "guard" {
  count = var.deletion_protection ? 1 : 0

  lifecycle {
    prevent_destroy      = true
    replace_triggered_by = [google_redis_instance.this.id]
  }
}
