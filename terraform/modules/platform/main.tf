# The whole of an environment, in the order in which it can be made:
#
#   services → network, buckets, tables, images → Redis, Kafka → service accounts and what they may
#     → the cluster → which pods speak for which service account

locals {
  labels = merge(var.labels, {
    app         = "streamforge"
    environment = var.environment
    managed-by  = "terraform"
  })

  # Of the chart: the Kubernetes service account streamforge-jobs speaks for Google's of the same name.
  in_kubernetes = ["jobs", "api"]

  # A network that is there has its connection to Google's services already.
  network = var.existing_network == null ? module.network[0] : merge(var.existing_network, {
    private_services_network_id = var.existing_network.network_id
  })

  # What Terraform knows and the chart has to be told, by the names of the chart's values. Every value that both of two
  # choices have is set, so that it replaces whatever another values file says.
  helm_values = {
    googleCloud     = { project = var.project_id }
    images          = { registry = module.registry.prefix }
    kafka           = merge({ servers = module.kafka.bootstrap_servers }, local.kafka_login)
    bigquery        = { dataset = module.bigquery.dataset_id }
    serviceAccounts = { for name in local.in_kubernetes : name => "streamforge-${name}" }
    api             = { batchReport = module.batch.report }

    redis = {
      inCluster    = { enabled = var.redis == null }
      url          = join("", module.redis[*].url)
      configSecret = { name = var.redis == null ? "" : "streamforge-redis" }
    }

    storage = {
      state   = "gs://${module.storage.buckets["state"]}"
      archive = module.batch.archive
    }

    networkPolicy = {
      redis         = { cidrs = [var.network.private_services_cidr], namespaces = [] }
      postgres      = { cidrs = coalesce(var.network.postgres_cidrs, [var.network.private_services_cidr]), namespaces = [] }
      kafka         = { cidrs = local.kafka_cidrs, namespaces = var.kafka.namespaces }
      kubernetesApi = { cidrs = [var.network.control_plane_cidr], namespaces = [] }
    }
  }

  # Google's Kafka answers accounts only; of another one Terraform does not know how it is connected to.
  kafka_login = { for name in var.kafka.managed == null ? [] : ["streamforge-kafka"] : "configSecret" => { name = name } }

  # A managed Kafka's brokers get addresses of the subnetwork. So, unless it is said, does one that is there.
  kafka_cidrs = coalesce(var.kafka.cidrs, length(var.kafka.namespaces) > 0 ? [] : [var.network.nodes_cidr])
}

module "services" {
  source = "../services"

  project_id = var.project_id
}

module "network" {
  source = "../network"
  count  = var.existing_network == null ? 1 : 0

  project_id            = module.services.project_id
  region                = var.region
  labels                = local.labels
  nodes_cidr            = var.network.nodes_cidr
  pods_cidr             = var.network.pods_cidr
  services_cidr         = var.network.services_cidr
  private_services_cidr = var.network.private_services_cidr
  flow_log_sampling     = var.network.flow_log_sampling

  worker_service_accounts = {
    dataproc = {
      service_account = module.identity.emails["batch"]
      allow           = { tcp = ["0-65535"], udp = ["0-65535"], icmp = [] }
    }
    dataflow = {
      service_account = module.identity.emails["dataflow"]
      allow           = { tcp = ["12345-12346"] }
    }
  }
}

module "storage" {
  source = "../storage"

  project_id          = module.services.project_id
  location            = var.region
  labels              = local.labels
  retention_days      = var.retention_days
  deletion_protection = var.deletion_protection
}

module "bigquery" {
  source = "../bigquery"

  project_id                = module.services.project_id
  dataset_id                = var.bigquery.dataset_id
  location                  = coalesce(var.bigquery.location, var.region)
  labels                    = local.labels
  partition_expiration_days = var.bigquery.partition_expiration_days
  deletion_protection       = var.deletion_protection
}

module "registry" {
  source = "../registry"

  project_id     = module.services.project_id
  region         = var.region
  labels         = local.labels
  immutable_tags = var.immutable_image_tags
}

module "redis" {
  source = "../redis"
  count  = var.redis == null ? 0 : 1

  project_id = module.services.project_id
  region     = var.region
  labels     = local.labels
  network_id = local.network.private_services_network_id
  tier       = var.redis.tier
  memory_gb  = var.redis.memory_gb
  snapshots  = var.redis.snapshots

  deletion_protection = var.deletion_protection
}

module "kafka" {
  source = "../kafka"

  project_id        = module.services.project_id
  region            = var.region
  labels            = local.labels
  subnetwork_id     = local.network.subnetwork_id
  managed           = var.kafka.managed
  bootstrap_servers = var.kafka.bootstrap_servers

  deletion_protection = var.deletion_protection
}

module "identity" {
  source = "../identity"

  project_id       = module.services.project_id
  buckets          = module.storage.buckets
  dataset_id       = module.bigquery.dataset_id
  project_number   = module.storage.project_number
  redis_secret_ids = merge(module.redis[*].secret_ids...)
  registry         = { repository = module.registry.repository, location = module.registry.location }
}

module "gke" {
  source = "../gke"
  count  = var.existing_cluster == null ? 1 : 0

  project_id           = module.services.project_id
  region               = var.region
  labels               = local.labels
  network_id           = local.network.network_id
  subnetwork_id        = local.network.subnetwork_id
  pods_range           = local.network.pods_range
  services_range       = local.network.services_range
  node_service_account = module.identity.node_service_account
  control_plane_cidr   = var.network.control_plane_cidr
  authorized_networks  = var.authorized_networks
  dns_endpoint         = var.dns_endpoint
  release_channel      = var.release_channel
  binary_authorization = var.binary_authorization
  rbac_security_group  = var.rbac_security_group
  maintenance_start    = var.maintenance_start
  deletion_protection  = var.deletion_protection
}

module "workload_identity" {
  source = "../workload_identity"

  workload_pool = var.existing_cluster == null ? module.gke[0].workload_pool : var.existing_cluster.workload_pool
  namespace     = var.namespace
  accounts      = { for name in local.in_kubernetes : "streamforge-${name}" => module.identity.names[name] }
}

module "batch" {
  source = "../batch"

  project_id      = module.services.project_id
  region          = var.region
  buckets         = module.storage.buckets
  bigquery_url    = module.bigquery.url
  service_account = module.identity.emails["batch"]
  subnetwork_id   = local.network.subnetwork_id
}

module "budget" {
  source = "../budget"
  count  = var.budget == null ? 0 : 1

  project_id      = module.services.project_id
  project_number  = module.storage.project_number
  labels          = local.labels
  billing_account = var.budget.billing_account
  amount          = var.budget.amount
  alert_emails    = var.budget.alert_emails
}

module "delivery" {
  source = "../delivery"
  count  = var.github_repository == null ? 0 : 1

  project_id        = module.services.project_id
  github_repository = var.github_repository
  pool_id           = var.delivery_pool_id
  registry          = { repository = module.registry.repository, location = module.registry.location }
  templates_bucket  = module.storage.buckets["templates"]
}
