# As prod, smaller: what breaks in prod shall break here first.
module "platform" {
  source = "../../modules/platform"

  environment         = "staging"
  project_id          = var.project_id
  region              = var.region
  labels              = var.labels
  authorized_networks = var.authorized_networks
  github_repository   = var.github_repository

  deletion_protection = true
  release_channel     = "REGULAR" # before prod's STABLE has a version, it was here
  redis               = { tier = "STANDARD_HA", memory_gb = 1 }
  bigquery            = { partition_expiration_days = 90 }

  kafka = {
    managed           = var.managed_kafka ? { partitions = 8 } : null
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
