mock_provider "google" {
  mock_resource "google_redis_instance" {
    defaults = {
      host = "10.40.0.3"
      port = 6378
    }
  }

  mock_resource "google_compute_subnetwork" {
    defaults = {
      id = "projects/shop-staging/regions/europe-west1/subnetworks/streamforge"
    }
  }
}

variables {
  project_id    = "shop-staging"
  managed_kafka = true
}

run "staging" {
  command = plan # what is protected, a test could not destroy again

  assert {
    condition     = output.platform.buckets["state"] == "shop-staging-streamforge-state"
    error_message = "Buckets are named for the project."
  }
}

run "with_a_budget" {
  command = plan # what is protected, a test could not destroy again

  variables {
    billing_account = "012345-6789AB-CDEF01"
    alert_emails    = ["platform@shop.example"]
  }

  assert {
    condition     = output.platform.bigquery_url == "bigquery://shop-staging.streamforge"
    error_message = "The jobs' --output names the dataset."
  }
}

run "with_workflows_that_push" {
  command = plan

  variables {
    github_repository = "shop/streamforge"
  }

  assert {
    condition     = output.platform.delivery.service_account == "streamforge-delivery@shop-staging.iam.gserviceaccount.com"
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
