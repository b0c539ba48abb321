# What must not be made is refused before anything is.
mock_provider "google" {}

variables {
  project_id          = "shop-prod"
  region              = "europe-west1"
  environment         = "prod"
  deletion_protection = true
  redis               = { tier = "STANDARD_HA", memory_gb = 5 }
  kafka               = { managed = {} }
  budget              = { billing_account = "012345-6789AB-CDEF01", amount = 1000, alert_emails = ["platform@shop.example"] }
}

run "as_it_should_be" {
  command = plan
}

run "prod_without_protection" {
  command = plan

  variables {
    deletion_protection = false
  }

  expect_failures = [var.deletion_protection]
}

run "prod_with_one_redis" {
  command = plan

  variables {
    redis = { tier = "BASIC", memory_gb = 5 }
  }

  expect_failures = [var.redis]
}

run "prod_without_a_budget" {
  command = plan

  variables {
    budget = null
  }

  expect_failures = [var.budget]
}

run "a_fourth_environment" {
  command = plan

  variables {
    environment = "production"
  }

  expect_failures = [var.environment]
}

run "a_zone_for_a_region" {
  command = plan

  variables {
    region = "europe-west1-b"
  }

  expect_failures = [var.region]
}

run "a_project_number" {
  command = plan

  variables {
    project_id = "123456789"
  }

  expect_failures = [var.project_id]
}

run "a_cluster_in_no_network" {
  command = plan

  variables {
    existing_cluster = { name = "shop", workload_pool = "shop-prod.svc.id.goog" }
  }

  expect_failures = [var.existing_cluster]
}
