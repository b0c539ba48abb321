# Google's Managed Service for Apache Kafka with the topics, or nothing but the address of a Kafka that is there.

locals {
  jobs = ["fraud-detector", "session-aggregator", "revenue-calculator", "cdc-processor", "archiver"]
  data = [
    "clickstream.events", "transactions.orders", "inventory.events",
    "alerts.fraud", "alerts.stock", "analytics.sessions", "analytics.revenue",
  ]
  captured = ["products", "customers", "orders", "order_items", "inventory_movements"]

  # A dead letter holds its record in base64, so it must be allowed to be larger. A change holds a whole row twice, and
  # may be as large as cdc/connector.json lets it be.
  letters = concat([for job in local.jobs : "dlq.${job}"], [for job in local.jobs : "late.${job}"])
  topics = merge(
    { for name in local.data : name => {} },
    { for table in local.captured : "cdc.public.${table}" => { "max.message.bytes" = "16777216" } },
    { for name in local.letters : name => { "max.message.bytes" = "4194304" } },
  )

  cluster = var.managed == null ? [] : [var.managed]
}

resource "google_managed_kafka_cluster" "this" {
  for_each = { for cluster in local.cluster : "this" => cluster }

  project    = var.project_id
  location   = var.region
  cluster_id = "streamforge"
  labels     = var.labels

  capacity_config {
    vcpu_count   = tostring(each.value.vcpus)
    memory_bytes = tostring(each.value.memory_gb * pow(1024, 3))
  }

  gcp_config {
    access_config {
      network_configs {
        subnet = var.subnetwork_id
      }
    }
  }

  rebalance_config {
    mode = "AUTO_REBALANCE_ON_SCALE_UP"
  }
}

resource "google_managed_kafka_topic" "this" {
  for_each = var.managed == null ? {} : local.topics

  project            = var.project_id
  location           = var.region
  cluster            = google_managed_kafka_cluster.this["this"].cluster_id
  topic_id           = each.key
  partition_count    = var.managed.partitions
  replication_factor = 3

  configs = merge({
    "min.insync.replicas" = "2"
    "retention.ms"        = tostring(var.managed.retention_days * 24 * 3600 * 1000)
  }, each.value)
}
