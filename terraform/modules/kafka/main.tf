# Google's Managed Service for Apache Kafka with the topics, or nothing but the address of a Kafka that is there.

locals {
  # Topic → its own settings. Written by make generate.
  topics = jsondecode(file("${path.module}/topics.json"))

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
