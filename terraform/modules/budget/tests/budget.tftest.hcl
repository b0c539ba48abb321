mock_provider "google" {}

variables {
  project_id      = "shop-prod"
  project_number  = 123456789012
  labels          = {}
  billing_account = "012345-6789AB-CDEF01"
  amount          = 4000
  alert_emails    = ["platform@shop.example", "costs@shop.example"]
}

run "mails" {
  assert {
    condition     = one(google_billing_budget.this.budget_filter).projects == toset(["projects/123456789012"])
    error_message = "Only this project counts."
  }

  assert {
    condition     = [for rule in google_billing_budget.this.threshold_rules : [rule.threshold_percent, rule.spend_basis]] == [[0.5, "CURRENT_SPEND"], [0.9, "CURRENT_SPEND"], [1.0, "CURRENT_SPEND"], [1.0, "FORECASTED_SPEND"]]
    error_message = "At half, at nine tenths, at all of it, and when all of it is in sight."
  }

  assert {
    condition     = length(one(google_billing_budget.this.all_updates_rule).monitoring_notification_channels) == 2
    error_message = "Both are told."
  }
}

run "nobody_is_told" {
  command = plan

  variables {
    alert_emails = []
  }

  expect_failures = [var.alert_emails]
}

run "an_account_that_is_none" {
  command = plan

  variables {
    billing_account = "shop"
  }

  expect_failures = [var.billing_account]
}

run "nothing" {
  command = plan

  variables {
    amount = 0
  }

  expect_failures = [var.amount]
}

run "no_share" {
  command = plan

  variables {
    thresholds = [0]
  }

  expect_failures = [var.thresholds]
}
