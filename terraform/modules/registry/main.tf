# Where the images are.

resource "google_artifact_registry_repository" "this" {
  #checkov:skip=CKV_GCP_84:Encrypted with keys that Google manages; a key of one's own has to be made and kept elsewhere
  project       = var.project_id
  location      = var.region
  repository_id = "streamforge"
  description   = "StreamForge's images."
  format        = "DOCKER"
  labels        = var.labels

  # What was rolled out under a tag is what that tag means. Google answers without the block where that is off, and every
  # plan would set it anew.
  dynamic "docker_config" {
    for_each = var.immutable_tags ? [true] : []

    content {
      immutable_tags = docker_config.value
    }
  }

  cleanup_policies {
    id     = "keep-newest"
    action = "KEEP"

    most_recent_versions {
      keep_count = 20
    }
  }

  cleanup_policies {
    id     = "delete-untagged"
    action = "DELETE"

    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s" # 30 days
    }
  }

  vulnerability_scanning_config {
    enablement_config = "INHERITED"
  }
}
