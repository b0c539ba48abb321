# Protected, and without a single machine whose loss is felt.
module "platform" {
  source = "../../modules/platform"

  environment         = "prod"
  project_id          = var.project_id
  region              = var.region
  labels              = var.labels
  authorized_networks = var.authorized_networks
  github_repository   = var.github_repository

  deletion_protection = true
  release_channel     = "STABLE"
  redis               = { tier = "STANDARD_HA", memory_gb = 5, snapshots = true }
  network             = { flow_log_sampling = 0.5 }

  kafka = {
    managed           = var.managed_kafka ? { vcpus = 6, memory_gb = 24, partitions = 16 } : null
    bootstrap_servers = var.kafka_bootstrap_servers
    cidrs             = var.kafka_peers.cidrs
    namespaces        = var.kafka_peers.namespaces
  }

  budget = {
    billing_account = var.billing_account
    amount          = var.monthly_budget
    alert_emails    = var.alert_emails
  }
}
