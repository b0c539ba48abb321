mock_provider "google" {}

variables {
  project_id       = "shop-prod"
  project_number   = 123456789012
  buckets          = { state = "b-state", archive = "b-archive", lakehouse = "b-lakehouse", templates = "b-templates", scratch = "b-scratch" }
  dataset_id       = "streamforge"
  registry         = { repository = "streamforge", location = "europe-west1" }
  redis_secret_ids = { url = "streamforge-redis-url" }
}

run "worker_roles_do_not_reach_all_buckets" {
  assert {
    condition     = one(google_project_iam_member.workers["dataflow"].condition).expression == "resource.service != \"storage.googleapis.com\" || resource.name.startsWith(\"projects/_/buckets/b-scratch\")"
    error_message = "Dataflow's role opens one bucket."
  }

  assert {
    condition     = one(google_project_iam_member.workers["batch"].condition).expression == "resource.service != \"storage.googleapis.com\" || resource.name.startsWith(\"projects/_/buckets/b-scratch\") || resource.name.startsWith(\"projects/_/buckets/dataproc-temp-\")"
    error_message = "Dataproc's role opens one bucket, and its own."
  }
}

run "composers_service_may_set_up_the_environment" {
  assert {
    condition     = google_service_account_iam_member.composer_agent.member == "serviceAccount:service-123456789012@cloudcomposer-accounts.iam.gserviceaccount.com"
    error_message = "Composer's agent of this project."
  }
}

run "a_bucket_is_missing" {
  command = plan

  variables {
    buckets = { state = "b-state" }
  }

  expect_failures = [var.buckets]
}
