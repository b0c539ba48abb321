mock_provider "google" {}

variables {
  project_id          = "shop-prod"
  dataset_id          = "live"
  location            = "EU"
  labels              = {}
  deletion_protection = true
}

run "tables" {
  assert {
    condition     = length(google_bigquery_table.tables) > 0 && toset([for name in keys(google_bigquery_table.tables) : "${name}_current"]) == toset(keys(google_bigquery_table.views))
    error_message = "Every table has its view."
  }

  assert {
    condition     = alltrue([for table in google_bigquery_table.tables : table.deletion_protection && one(table.time_partitioning).type == "DAY"])
    error_message = "Tables are protected, and have a partition per day."
  }

  assert {
    condition     = alltrue([for name, view in google_bigquery_table.views : strcontains(one(view.view).query, "`shop-prod.live.${trimsuffix(name, "_current")}`") && !strcontains(one(view.view).query, "project-id")])
    error_message = "A view reads its table, in this dataset."
  }

  assert {
    condition     = !google_bigquery_dataset.this.delete_contents_on_destroy
    error_message = "A dataset that holds tables stays."
  }
}

run "some_days" {
  variables {
    partition_expiration_days = 30
  }

  assert {
    condition     = alltrue([for table in google_bigquery_table.tables : one(table.time_partitioning).expiration_ms == 2592000000])
    error_message = "30 days, in milliseconds."
  }
}

run "less_than_the_batch_needs" {
  command = plan

  variables {
    partition_expiration_days = 1
  }

  expect_failures = [var.partition_expiration_days]
}

run "a_name_with_a_dash" {
  command = plan

  variables {
    dataset_id = "shop-live"
  }

  expect_failures = [var.dataset_id]
}
