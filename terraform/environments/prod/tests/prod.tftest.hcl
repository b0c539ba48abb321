mock_provider "google" {
  mock_resource "google_redis_instance" {
    defaults = {
      host = "10.40.0.3"
      port = 6378
    }
  }

  mock_resource "google_compute_subnetwork" {
    defaults = {
      id = "projects/shop-prod/regions/europe-west1/subnetworks/streamforge"
    }
  }
}

variables {
  project_id          = "shop-prod"
  managed_kafka       = true
  billing_account     = "012345-6789AB-CDEF01"
  monthly_budget      = 4000
  alert_emails        = ["platform@shop.example"]
  authorized_networks = { office = "203.0.113.0/24" }
}

run "prod" {
  command = plan # what is protected, a test could not destroy again

  assert {
    condition     = output.platform.kafka_bootstrap_servers == "bootstrap.streamforge.europe-west1.managedkafka.shop-prod.cloud.goog:9092"
    error_message = "The managed Kafka's address is told."
  }

  assert {
    condition     = output.platform.image_prefix == "europe-west1-docker.pkg.dev/shop-prod/streamforge"
    error_message = "Images are in the environment's own registry."
  }

  assert {
    condition     = output.platform.bigquery_url == "bigquery://shop-prod.streamforge"
    error_message = "The jobs' --output names the dataset."
  }

  assert {
    condition     = output.platform.workload_identities["streamforge-jobs"] == "serviceAccount:shop-prod.svc.id.goog[streamforge/streamforge-jobs]"
    error_message = "The jobs' pods speak for their service account."
  }
}

run "another_kafka" {
  command = plan # what is protected, a test could not destroy again

  variables {
    managed_kafka           = false
    kafka_bootstrap_servers = "kafka-1.shop.example:9093,kafka-2.shop.example:9093"
  }

  assert {
    condition     = output.platform.kafka_bootstrap_servers == "kafka-1.shop.example:9093,kafka-2.shop.example:9093"
    error_message = "A Kafka that is there is taken."
  }

  assert {
    condition     = anytrue([for topic in keys(output.platform.kafka_topics) : startswith(topic, "dlq.")])
    error_message = "Its topics are still said."
  }
}

run "with_workflows_that_push" {
  command = plan

  variables {
    github_repository = "shop/streamforge"
  }

  assert {
    condition     = output.platform.delivery.service_account == "streamforge-delivery@shop-prod.iam.gserviceaccount.com"
    error_message = "Workflows get a token for an account of their own."
  }
}

run "no_kafka_at_all" {
  command = plan

  variables {
    managed_kafka = false
  }

  expect_failures = [var.kafka_bootstrap_servers]
}
