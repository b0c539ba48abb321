mock_provider "google" {}

variables {
  project_id          = "shop-prod"
  location            = "europe-west1"
  labels              = {}
  deletion_protection = true
}

run "ages" {
  assert {
    condition = jsonencode([
      for rule in google_storage_bucket.this["state"].lifecycle_rule :
      [one(rule.action).type, one(rule.condition).age, one(rule.condition).matches_prefix]
      if one(rule.action).type == "Delete"
    ]) == jsonencode([["Delete", 7, ["checkpoints/"]], ["Delete", 90, ["savepoints/"]]])
    error_message = "Checkpoints are deleted after 7 days, savepoints after 90."
  }

  assert {
    condition = jsonencode([
      for rule in google_storage_bucket.this["archive"].lifecycle_rule :
      [one(rule.condition).age, one(rule.condition).matches_prefix] if one(rule.action).type == "Delete"
    ]) == jsonencode([[30, ["dead-letters/"]]])
    error_message = "Dead letters are deleted after 30 days, and nothing else of the archive."
  }

  assert {
    condition = jsonencode([
      for rule in google_storage_bucket.this["lakehouse"].lifecycle_rule :
      [one(rule.action).type, one(rule.action).storage_class, one(rule.condition).age, one(rule.condition).matches_suffix]
      if one(rule.action).type != "AbortIncompleteMultipartUpload"
    ]) == jsonencode([["SetStorageClass", "NEARLINE", 30, [".parquet"]]])
    error_message = "Iceberg's data goes to Nearline after 30 days; nothing is deleted."
  }

  assert {
    condition     = alltrue([for bucket in google_storage_bucket.this : bucket.public_access_prevention == "enforced" && bucket.uniform_bucket_level_access && !bucket.force_destroy])
    error_message = "No bucket can be opened to the public, or destroyed with its files."
  }
}

run "half_a_day" {
  command = plan

  variables {
    retention_days = { checkpoints = 2.5 }
  }

  expect_failures = [var.retention_days]
}

run "checkpoints_gone_before_the_next_full_one" {
  command = plan

  variables {
    retention_days = { checkpoints = 1 }
  }

  expect_failures = [var.retention_days]
}

run "savepoints_gone_before_checkpoints" {
  command = plan

  variables {
    retention_days = { savepoints = 3 }
  }

  expect_failures = [var.retention_days]
}
