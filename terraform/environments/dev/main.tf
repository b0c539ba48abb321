# Small, and gone with one command. Nothing here is worth protecting.
module "platform" {
  source = "../../modules/platform"

  environment         = "dev"
  project_id          = var.project_id
  region              = var.region
  labels              = var.labels
  authorized_networks = var.authorized_networks
  github_repository   = var.github_repository

  deletion_protection  = false
  release_channel      = "REGULAR"
  immutable_image_tags = false # so that `latest` can be pushed again
  redis                = null  # the chart runs one
  bigquery             = { partition_expiration_days = 30 }
  network              = { flow_log_sampling = 0 }

  kafka = {
    managed           = var.managed_kafka ? { partitions = 4, retention_days = 3 } : null
    bootstrap_servers = var.kafka_bootstrap_servers
    cidrs             = var.kafka_peers.cidrs
    namespaces        = var.kafka_peers.namespaces
  }

  budget = var.billing_account == null ? null : {
    billing_account = var.billing_account
    amount          = var.monthly_budget
    alert_emails    = var.alert_emails
  }
}
