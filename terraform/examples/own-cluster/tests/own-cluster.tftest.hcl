mock_provider "google" {
  override_during = plan # what Google would say, so that the chart's values are known

  mock_resource "google_redis_instance" {
    defaults = {
      host = "10.4.0.3"
      port = 6378
    }
  }
}

variables {
  project_id              = "shop-staging"
  network                 = "shop"
  subnetwork              = "shop-nodes"
  cluster                 = "shop"
  kafka_bootstrap_servers = "kafka-kafka-bootstrap.kafka:9092"
  kafka_namespaces        = ["kafka"]
  ranges                  = { nodes = "10.1.0.0/20", pods = "10.2.0.0/16", services = "10.3.0.0/20", private_services = "10.4.0.0/20", control_plane = "172.16.1.0/28" }
}

run "beside_what_is_there" {
  command = plan

  assert {
    condition     = yamldecode(output.helm_values).networkPolicy.redis.cidrs == ["10.4.0.0/20"]
    error_message = "The chart is told the ranges of that network."
  }

  assert {
    condition     = yamldecode(output.helm_values).networkPolicy.kafka == { cidrs = [], namespaces = ["kafka"] }
    error_message = "Kafka is in the cluster."
  }

  assert {
    condition     = module.platform.workload_identities["streamforge-jobs"] == "serviceAccount:shop-staging.svc.id.goog[streamforge/streamforge-jobs]"
    error_message = "The cluster's pods speak for the project's accounts."
  }
}
