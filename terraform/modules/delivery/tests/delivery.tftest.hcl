mock_provider "google" {
  mock_resource "google_iam_workload_identity_pool" {
    defaults = {
      name = "projects/1/locations/global/workloadIdentityPools/streamforge-delivery"
    }
  }
}

variables {
  project_id        = "shop-prod"
  pool_id           = "streamforge-delivery"
  github_repository = "shop/streamforge"
  registry          = { repository = "streamforge", location = "europe-west1" }
  templates_bucket  = "shop-prod-streamforge-templates"
}

run "only_that_repository" {
  assert {
    condition     = google_service_account_iam_member.github.member == "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/streamforge-delivery/attribute.repository/shop/streamforge"
    error_message = "Only workflows of that repository get a token."
  }

  assert {
    condition     = startswith(google_iam_workload_identity_pool_provider.github.attribute_condition, "assertion.repository == \"shop/streamforge\" && (assertion.ref == \"refs/heads/main\" || ")
    error_message = "Only from main, and from tags of releases."
  }
}

run "an_owner_alone" {
  command = plan

  variables {
    github_repository = "shop"
  }

  expect_failures = [var.github_repository]
}

run "a_reserved_pool" {
  command = plan

  variables {
    pool_id = "gcp-streamforge"
  }

  expect_failures = [var.pool_id]
}

run "every_repository" {
  command = plan

  variables {
    github_repository = "shop/*"
  }

  expect_failures = [var.github_repository]
}
