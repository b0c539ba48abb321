mock_provider "google" {}

run "bound" {
  variables {
    workload_pool = "shop-prod.svc.id.goog"
    namespace     = "shop"
    accounts      = { streamforge-jobs = "projects/shop-prod/serviceAccounts/streamforge-jobs@shop-prod.iam.gserviceaccount.com" }
  }

  assert {
    condition     = output.members["streamforge-jobs"] == "serviceAccount:shop-prod.svc.id.goog[shop/streamforge-jobs]"
    error_message = "Only that Kubernetes service account of that namespace."
  }
}

run "a_namespace_that_is_none" {
  command = plan

  variables {
    workload_pool = "shop-prod.svc.id.goog"
    namespace     = "Shop"
    accounts      = {}
  }

  expect_failures = [var.namespace]
}
