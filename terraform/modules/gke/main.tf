# Autopilot: nodes, their upgrades, Workload Identity, shielded nodes and the metadata server are Google's business.

resource "google_container_cluster" "this" {
  #checkov:skip=CKV_GCP_12:Autopilot enforces network policies always; the argument is not for it
  #checkov:skip=CKV_GCP_21:Labels are given, as a map that the check cannot see into; a test looks at them
  #checkov:skip=CKV_GCP_61:Flow logs are the subnetwork's; traffic within a node is visible on Autopilot always
  #checkov:skip=CKV_GCP_65:A variable, rbac_security_group: it needs a group in Google Workspace that must be there before
  #checkov:skip=CKV_GCP_66:A variable, binary_authorization: the policy is the project's, and refuses all images at first
  #checkov:skip=CKV_GCP_68:Autopilot's nodes have secure boot always; the argument is not for it
  #checkov:skip=CKV_GCP_69:Autopilot has the metadata server always; the argument is not for it
  project    = var.project_id
  location   = var.region
  name       = var.name
  network    = var.network_id
  subnetwork = var.subnetwork_id

  enable_autopilot    = true
  deletion_protection = var.deletion_protection
  resource_labels     = var.labels

  release_channel {
    channel = var.release_channel
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = var.pods_range
    services_secondary_range_name = var.services_range
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = length(var.authorized_networks) == 0
    master_ipv4_cidr_block  = var.control_plane_cidr
  }

  # IAM decides who is let in, from wherever they are: the way in for people and pipelines outside of the network.
  control_plane_endpoints_config {
    dns_endpoint_config {
      allow_external_traffic = var.dns_endpoint
    }
  }

  # Without a block the control plane would answer everybody.
  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = var.authorized_networks

      content {
        cidr_block   = cidr_blocks.value
        display_name = cidr_blocks.key
      }
    }
  }

  # Not the default account of the project's machines, which may be an editor of all of it.
  cluster_autoscaling {
    auto_provisioning_defaults {
      service_account = var.node_service_account
      oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    }
  }

  # The first nodes are made before auto-provisioning, with the default account: an error where that is disabled.
  node_config {
    service_account = var.node_service_account
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  dynamic "authenticator_groups_config" {
    for_each = var.rbac_security_group == null ? [] : [var.rbac_security_group]

    content {
      security_group = authenticator_groups_config.value
    }
  }

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }

  binary_authorization {
    evaluation_mode = var.binary_authorization ? "PROJECT_SINGLETON_POLICY_ENFORCE" : "DISABLED"
  }

  monitoring_config {
    managed_prometheus {
      enabled = true
    }
  }

  cost_management_config {
    enabled = true
  }

  security_posture_config {
    mode = "BASIC"
  }

  maintenance_policy {
    recurring_window {
      start_time = "2026-01-01T${var.maintenance_start}:00Z"
      end_time   = "2026-01-01T${format("%02d", tonumber(split(":", var.maintenance_start)[0]) + 4)}:${split(":", var.maintenance_start)[1]}:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=TU,WE,TH"
    }
  }

  lifecycle {
    # Only for the first nodes. Later ones are Autopilot's business, and a difference would replace the cluster.
    ignore_changes = [node_config]
  }
}
