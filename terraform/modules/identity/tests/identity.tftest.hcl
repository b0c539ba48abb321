mock_provider "google" {}

variables {
  project_id       = "shop-prod"
  buckets          = { state = "b-state", archive = "b-archive", lakehouse = "b-lakehouse", templates = "b-templates", scratch = "b-scratch" }
  dataset_id       = "streamforge"
  registry         = { repository = "streamforge", location = "europe-west1" }
  redis_secret_ids = { url = "streamforge-redis-url" }
}

run "worker_roles_reach_one_bucket" {
  assert {
    condition     = alltrue([for grant in google_project_iam_member.workers : one(grant.condition).expression == "resource.service != \"storage.googleapis.com\" || resource.name.startsWith(\"projects/_/buckets/b-scratch\")"])
    error_message = "Dataproc's and Dataflow's roles do not open all buckets."
  }
}

run "a_bucket_is_missing" {
  command = plan

  variables {
    buckets = { state = "b-state" }
  }

  expect_failures = [var.buckets]
}
