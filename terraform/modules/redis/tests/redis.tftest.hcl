mock_provider "google" {
  mock_resource "google_redis_instance" {
    defaults = {
      host        = "10.40.0.3"
      port        = 6378
      auth_string = "drawn-by-google"
    }
  }
}

variables {
  # What is protected, a test could not destroy again; tests/terraform/test_plans.py looks at that.
  deletion_protection = false

  project_id = "shop-prod"
  region     = "europe-west1"
  labels     = {}
  network_id = "network"
  tier       = "STANDARD_HA"
  memory_gb  = 5
}

run "closed" {
  assert {
    condition     = google_redis_instance.this.auth_enabled && google_redis_instance.this.transit_encryption_mode == "SERVER_AUTHENTICATION"
    error_message = "Redis wants a password, and TLS."
  }

  assert {
    condition     = google_redis_instance.this.redis_configs["maxmemory-policy"] == "noeviction"
    error_message = "A full store throws nothing away."
  }

  assert {
    condition     = google_secret_manager_secret_version.this["streamforge-redis-url"].secret_data == "rediss://:drawn-by-google@10.40.0.3:6378/0"
    error_message = "The secret is what jobs and API take."
  }
}

run "no_such_tier" {
  command = plan

  variables {
    tier = "HA"
  }

  expect_failures = [var.tier]
}

run "half_a_gigabyte" {
  command = plan

  variables {
    memory_gb = 0.5
  }

  expect_failures = [var.memory_gb]
}
