mock_provider "google" {}

variables {
  project_id = "shop-prod"
  region     = "europe-west1"
  labels     = {}

  nodes_cidr            = "10.1.0.0/20"
  pods_cidr             = "10.2.0.0/16"
  services_cidr         = "10.3.0.0/20"
  private_services_cidr = "10.4.0.0/20"
}

run "inside" {
  variables {
    worker_service_accounts = { dataproc = { service_account = "batch@shop-prod.iam.gserviceaccount.com", allow = { tcp = ["0-65535"] } } }
  }

  assert {
    condition     = google_compute_subnetwork.this.private_ip_google_access
    error_message = "Google's services are reached without the internet."
  }

  assert {
    condition     = google_compute_firewall.workers["dataproc"].source_service_accounts == google_compute_firewall.workers["dataproc"].target_service_accounts && google_compute_firewall.workers["dataproc"].source_ranges == null
    error_message = "Workers are reached by workers of their kind, and by no range of addresses."
  }

  assert {
    condition     = google_compute_global_address.private_services.address == "10.4.0.0" && google_compute_global_address.private_services.prefix_length == 20
    error_message = "Google's services get the range that was said."
  }
}

run "a_range_that_is_none" {
  command = plan

  variables {
    pods_cidr = "10.2.0.0"
  }

  expect_failures = [var.pods_cidr]
}

run "more_than_all" {
  command = plan

  variables {
    flow_log_sampling = 10
  }

  expect_failures = [var.flow_log_sampling]
}
