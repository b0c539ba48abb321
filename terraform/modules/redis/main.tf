# The online store. Reached inside the network only, with a password and TLS. The password is Google's and never shown: the
# whole address is in Secret Manager, from where Dataflow's workers read it and people bring it to Kubernetes. It is in
# Terraform's state, too, which is one more reason to keep that in a bucket that few may read.

resource "google_redis_instance" "this" {
  project            = var.project_id
  region             = var.region
  name               = "streamforge"
  labels             = var.labels
  tier               = var.tier
  memory_size_gb     = var.memory_gb
  redis_version      = "REDIS_7_2"
  authorized_network = var.network_id
  connect_mode       = "PRIVATE_SERVICE_ACCESS"

  auth_enabled            = true
  transit_encryption_mode = "SERVER_AUTHENTICATION"

  redis_configs = {
    # A full store refuses writes, and jobs wait. Any other policy would throw away what readers rely on.
    "maxmemory-policy" = "noeviction"
  }

  dynamic "persistence_config" {
    for_each = var.snapshots ? ["TWELVE_HOURS"] : []

    content {
      persistence_mode    = "RDB"
      rdb_snapshot_period = persistence_config.value
    }
  }

  maintenance_policy {
    weekly_maintenance_window {
      day = "WEDNESDAY"

      start_time {
        hours   = 8
        minutes = 0
        seconds = 0
        nanos   = 0
      }
    }
  }
}

locals {
  secrets = {
    "streamforge-redis-url"      = "rediss://:${google_redis_instance.this.auth_string}@${google_redis_instance.this.host}:${google_redis_instance.this.port}/0"
    "streamforge-redis-password" = google_redis_instance.this.auth_string
    # All of them: while Google changes the authority, there are two.
    "streamforge-redis-ca" = join("\n", google_redis_instance.this.server_ca_certs[*].cert)
  }
}

resource "google_secret_manager_secret" "this" {
  for_each = toset(["streamforge-redis-url", "streamforge-redis-password", "streamforge-redis-ca"])

  project   = var.project_id
  secret_id = each.value
  labels    = var.labels

  deletion_protection = var.deletion_protection

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }
}

resource "google_secret_manager_secret_version" "this" {
  for_each = google_secret_manager_secret.this

  secret      = each.value.id
  secret_data = local.secrets[each.key]
}
