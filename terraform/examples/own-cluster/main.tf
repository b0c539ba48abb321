# StreamForge in a network and a cluster that are there: nothing of either is made or changed. The network needs private
# services access (for Memorystore), Cloud NAT, and a firewall that lets Dataproc's and Dataflow's workers reach each
# other; the cluster needs Workload Identity, and network policies that are enforced.
module "platform" {
  source = "../../modules/platform"

  environment         = "staging"
  project_id          = var.project_id
  region              = var.region
  deletion_protection = true
  redis               = { tier = "STANDARD_HA", memory_gb = 1 }

  # Of that network: the chart's policies are made of them.
  network = {
    nodes_cidr            = var.ranges.nodes
    pods_cidr             = var.ranges.pods
    services_cidr         = var.ranges.services
    private_services_cidr = var.ranges.private_services
    control_plane_cidr    = var.ranges.control_plane
  }

  existing_network = {
    network_id    = "projects/${var.project_id}/global/networks/${var.network}"
    subnetwork_id = "projects/${var.project_id}/regions/${var.region}/subnetworks/${var.subnetwork}"
  }

  existing_cluster = {
    name          = var.cluster
    workload_pool = "${var.project_id}.svc.id.goog"
  }

  kafka = {
    bootstrap_servers = var.kafka_bootstrap_servers
    namespaces        = var.kafka_namespaces
  }
}
