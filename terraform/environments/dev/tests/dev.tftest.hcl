mock_provider "google" {
  mock_resource "google_compute_subnetwork" {
    defaults = {
      id = "projects/shop-dev/regions/europe-west1/subnetworks/streamforge"
    }
  }
}

variables {
  project_id    = "shop-dev"
  managed_kafka = true
}

run "dev" {
  assert {
    condition     = output.platform.buckets["state"] == "shop-dev-streamforge-state"
    error_message = "Buckets are named for the project."
  }
}

run "with_a_budget" {
  variables {
    billing_account = "012345-6789AB-CDEF01"
    alert_emails    = ["platform@shop.example"]
  }

  assert {
    condition     = output.platform.bigquery_url == "bigquery://shop-dev.streamforge"
    error_message = "The jobs' --output names the dataset."
  }
}

run "with_workflows_that_push" {
  command = plan

  variables {
    github_repository = "shop/streamforge"
  }

  assert {
    condition     = output.platform.delivery.service_account == "streamforge-delivery@shop-dev.iam.gserviceaccount.com"
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
