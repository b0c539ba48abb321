# One network, one subnetwork, no machine with an address of its own on the internet. Google's services are reached
# inside (private Google access, private services access), everything else through Cloud NAT.

resource "google_compute_network" "this" {
  project                 = var.project_id
  name                    = var.name
  auto_create_subnetworks = false
  routing_mode            = "REGIONAL"
}

resource "google_compute_subnetwork" "this" {
  project                  = var.project_id
  region                   = var.region
  name                     = var.name
  network                  = google_compute_network.this.id
  ip_cidr_range            = var.nodes_cidr
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = var.pods_cidr
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = var.services_cidr
  }

  log_config {
    aggregation_interval = "INTERVAL_5_MIN"
    flow_sampling        = var.flow_log_sampling
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_router" "this" {
  project = var.project_id
  region  = var.region
  name    = var.name
  network = google_compute_network.this.id
}

# The way out for the batch's cluster (PyPI) and whatever else is not Google's.
resource "google_compute_router_nat" "this" {
  project                            = var.project_id
  region                             = var.region
  name                               = var.name
  router                             = google_compute_router.this.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# Memorystore's address comes from here.
resource "google_compute_global_address" "private_services" {
  project       = var.project_id
  name          = "${var.name}-private-services"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  address       = split("/", var.private_services_cidr)[0]
  prefix_length = tonumber(split("/", var.private_services_cidr)[1])
  network       = google_compute_network.this.id
  labels        = var.labels
}

resource "google_service_networking_connection" "this" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.private_services.name]

  # Google refuses to take it down for hours after the last Redis is gone; it goes with the network.
  deletion_policy = "ABANDON"
}

# Dataproc's and Dataflow's machines talk among themselves; nobody else talks to them.
resource "google_compute_firewall" "workers" {
  for_each = var.worker_service_accounts

  project     = var.project_id
  name        = "${var.name}-${each.key}-among-themselves"
  description = "Workers of ${each.key} reach each other."
  network     = google_compute_network.this.id
  direction   = "INGRESS"

  source_service_accounts = [each.value.service_account]
  target_service_accounts = [each.value.service_account]

  dynamic "allow" {
    for_each = each.value.allow

    content {
      protocol = allow.key
      ports    = allow.value
    }
  }

  log_config {
    metadata = "EXCLUDE_ALL_METADATA"
  }
}
