mock_provider "google" {}

variables {
  # What is protected, a test could not destroy again; tests/terraform/test_plans.py looks at that.
  deletion_protection = false

  project_id    = "shop-prod"
  region        = "europe-west1"
  labels        = {}
  subnetwork_id = "subnetwork"
}

run "managed" {
  variables {
    managed = { partitions = 8, retention_days = 7 }
  }

  assert {
    condition     = alltrue([for topic in google_managed_kafka_topic.this : topic.partition_count == 8 && topic.replication_factor == 3])
    error_message = "Every topic has its partitions, three times."
  }

  assert {
    condition     = alltrue([for name, topic in google_managed_kafka_topic.this : topic.configs["max.message.bytes"] == "4194304" if startswith(name, "dlq.")])
    error_message = "A dead letter may be larger than its record."
  }

  assert {
    condition     = alltrue([for name, topic in google_managed_kafka_topic.this : topic.configs["max.message.bytes"] == "16777216" if startswith(name, "cdc.")])
    error_message = "A change may be as large as the connector's producer lets it be."
  }

  assert {
    condition     = alltrue([for topic in google_managed_kafka_topic.this : topic.configs["retention.ms"] == "604800000"])
    error_message = "Records are kept 7 days."
  }

  assert {
    condition     = one(google_managed_kafka_cluster.this["this"].capacity_config).memory_bytes == "12884901888"
    error_message = "12 GiB."
  }
}

run "existing" {
  variables {
    bootstrap_servers = "kafka.shop.example:9092"
  }

  assert {
    condition     = length(google_managed_kafka_cluster.this) == 0 && length(google_managed_kafka_topic.this) == 0
    error_message = "Nothing is made beside a Kafka that is there."
  }
}

run "neither" {
  command         = plan
  expect_failures = [var.bootstrap_servers]
}

run "both" {
  command = plan

  variables {
    managed           = {}
    bootstrap_servers = "kafka.shop.example:9092"
  }

  expect_failures = [var.bootstrap_servers]
}

run "a_url" {
  command = plan

  variables {
    bootstrap_servers = "kafka://kafka.shop.example:9092"
  }

  expect_failures = [var.bootstrap_servers]
}

run "more_partitions_than_shards" {
  command = plan

  variables {
    managed = { partitions = 129 }
  }

  expect_failures = [var.managed]
}

run "too_little_memory" {
  command = plan

  variables {
    managed = { vcpus = 6, memory_gb = 4 }
  }

  expect_failures = [var.managed]
}
