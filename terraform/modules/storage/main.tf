# The buckets, and what is deleted from them when.

locals {
  buckets = {
    # Flink's checkpoints/, savepoints/ and ha/. A file of an incremental checkpoint may be referred to by newer ones:
    # docs/terraform.md says what keeps live ones younger than the rule.
    state = {
      versioned        = false
      soft_delete_days = 7 # what a rule deleted too early can be had back
      rules = [
        { delete = true, days = var.retention_days.checkpoints, prefixes = ["checkpoints/"], suffixes = [] },
        { delete = true, days = var.retention_days.savepoints, prefixes = ["savepoints/"], suffixes = [] },
      ]
    }
    # Every valid record, and dead-letters/.
    archive = {
      versioned        = false
      soft_delete_days = 7
      rules = [
        { delete = true, days = var.retention_days.dead_letters, prefixes = ["dead-letters/"], suffixes = [] },
      ]
    }
    # Iceberg's tables, and the batch's reports. Only data files go to Nearline: metadata is read with every query.
    lakehouse = {
      versioned        = false
      soft_delete_days = 7
      rules = [
        { delete = false, days = var.retention_days.iceberg_to_nearline, prefixes = [], suffixes = [".parquet"] },
      ]
    }
    # Dataflow's templates, the batch's code.
    templates = {
      versioned        = true
      soft_delete_days = 7
      rules            = []
    }
    # What Dataproc and Dataflow leave behind. Dataflow's staging/ stays: running jobs load it again.
    scratch = {
      versioned        = false
      soft_delete_days = 0
      rules = [
        {
          delete   = true
          days     = var.retention_days.scratch
          prefixes = ["google-cloud-dataproc-metainfo/", "temp/"]
          suffixes = []
        },
      ]
    }
  }
}

resource "google_storage_bucket" "this" {
  #checkov:skip=CKV_GCP_62:Who reads and writes is in Cloud Audit Logs; usage logs would be a sixth bucket
  #checkov:skip=CKV_GCP_78:Versions would keep every checkpoint and every file that Iceberg replaced; templates have them
  for_each = local.buckets

  project                     = var.project_id
  name                        = "${var.project_id}-streamforge-${each.key}"
  location                    = var.location
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.deletion_protection

  versioning {
    enabled = each.value.versioned
  }

  soft_delete_policy {
    retention_duration_seconds = each.value.soft_delete_days * 24 * 3600
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.rules

    content {
      action {
        type          = lifecycle_rule.value.delete ? "Delete" : "SetStorageClass"
        storage_class = lifecycle_rule.value.delete ? null : "NEARLINE"
      }

      condition {
        age                   = lifecycle_rule.value.days
        matches_prefix        = lifecycle_rule.value.prefixes
        matches_suffix        = lifecycle_rule.value.suffixes
        matches_storage_class = lifecycle_rule.value.delete ? null : ["STANDARD"]
      }
    }
  }

  # Of what is versioned, the five newest of a name are kept.
  dynamic "lifecycle_rule" {
    for_each = each.value.versioned ? [5] : []

    content {
      action {
        type = "Delete"
      }

      condition {
        num_newer_versions = lifecycle_rule.value
        with_state         = "ARCHIVED"
      }
    }
  }

  # Parts of uploads that never ended.
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }

    condition {
      age = 1
    }
  }
}
