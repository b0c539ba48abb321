mock_provider "google" {}

variables {
  project_id           = "shop-prod"
  region               = "europe-west1"
  labels               = {}
  network_id           = "network"
  subnetwork_id        = "subnetwork"
  pods_range           = "pods"
  services_range       = "services"
  node_service_account = "nodes@shop-prod.iam.gserviceaccount.com"
  control_plane_cidr   = "172.16.1.0/28"
  authorized_networks  = { office = "203.0.113.0/24" }
  dns_endpoint         = true
  deletion_protection  = true
}

run "private" {
  assert {
    condition     = one(google_container_cluster.this.private_cluster_config).enable_private_nodes
    error_message = "Nodes have no address on the internet."
  }

  assert {
    condition     = [for block in one(google_container_cluster.this.master_authorized_networks_config).cidr_blocks : block.cidr_block] == ["203.0.113.0/24"]
    error_message = "The control plane answers the office."
  }

  assert {
    condition     = !one(google_container_cluster.this.private_cluster_config).enable_private_endpoint
    error_message = "The office reaches the control plane from outside."
  }

  assert {
    condition     = google_container_cluster.this.deletion_protection
    error_message = "It cannot be destroyed."
  }
}

run "no_node_of_the_default_account" {
  assert {
    condition     = one(google_container_cluster.this.node_config).service_account == var.node_service_account && one(one(google_container_cluster.this.cluster_autoscaling).auto_provisioning_defaults).service_account == var.node_service_account
    error_message = "The first nodes and all later ones run as the account that was said."
  }
}

run "closed" {
  variables {
    authorized_networks = {}
    dns_endpoint        = false
  }

  assert {
    condition     = !one(one(google_container_cluster.this.control_plane_endpoints_config).dns_endpoint_config).allow_external_traffic
    error_message = "Its DNS name answers nobody outside."
  }

  assert {
    condition     = one(google_container_cluster.this.private_cluster_config).enable_private_endpoint && length(one(google_container_cluster.this.master_authorized_networks_config).cidr_blocks) == 0
    error_message = "With nobody authorized the control plane is inside only, and does not answer everybody."
  }
}

run "the_whole_internet" {
  command = plan

  variables {
    authorized_networks = { everybody = "0.0.0.0/0" }
  }

  expect_failures = [var.authorized_networks]
}

run "an_address_that_is_none" {
  command = plan

  variables {
    authorized_networks = { office = "203.0.113.0" }
  }

  expect_failures = [var.authorized_networks]
}

run "a_channel_that_is_none" {
  command = plan

  variables {
    release_channel = "FAST"
  }

  expect_failures = [var.release_channel]
}

run "too_late_in_the_day" {
  command = plan

  variables {
    maintenance_start = "22:00"
  }

  expect_failures = [var.maintenance_start]
}
