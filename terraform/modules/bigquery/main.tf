# The dataset, its tables and views. What they are is schemas/tables.py: tables.json is written from there, and a test
# fails when they differ. To write it anew:
#
#   python -m beam_pipelines.tables show --json > terraform/modules/bigquery/tables.json

locals {
  resources = jsondecode(file("${path.module}/tables.json"))
  tables    = { for name, found in local.resources : name => found if can(found.schema) }
  views     = { for name, found in local.resources : name => found if can(found.view) }

  # How the file names a dataset that it does not know.
  placeholder = "`project-id.dataset."
  dataset     = "`${var.project_id}.${var.dataset_id}."
}

resource "google_bigquery_dataset" "this" {
  #checkov:skip=CKV_GCP_81:Encrypted with keys that Google manages; a key of one's own has to be made and kept elsewhere
  project                    = var.project_id
  dataset_id                 = var.dataset_id
  location                   = var.location
  description                = "What StreamForge's jobs found. Read <table>_current: each key once, its newest version."
  labels                     = var.labels
  delete_contents_on_destroy = !var.deletion_protection
  max_time_travel_hours      = "168"
}

resource "google_bigquery_table" "tables" {
  #checkov:skip=CKV_GCP_80:Encrypted as the dataset, with keys that Google manages
  #checkov:skip=CKV_GCP_121:A variable, which modules/platform refuses to have false in prod; a test looks at it
  for_each = local.tables

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.this.dataset_id
  table_id            = each.key
  description         = "Appended to only; may hold a row twice. Read ${each.key}_current."
  labels              = var.labels
  deletion_protection = var.deletion_protection
  schema              = jsonencode(each.value.schema.fields)
  clustering          = each.value.clustering.fields

  time_partitioning {
    type          = each.value.timePartitioning.type
    field         = each.value.timePartitioning.field
    expiration_ms = var.partition_expiration_days == null ? null : var.partition_expiration_days * 24 * 3600 * 1000
  }
}

resource "google_bigquery_table" "views" {
  #checkov:skip=CKV_GCP_80:Encrypted as the dataset, with keys that Google manages
  #checkov:skip=CKV_GCP_121:A view holds nothing of its own, and is made anew
  for_each = local.views

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.this.dataset_id
  table_id            = each.key
  description         = "Each key of ${trimsuffix(each.key, "_current")} once, its newest version."
  labels              = var.labels
  deletion_protection = false

  view {
    query          = replace(each.value.view.query, local.placeholder, local.dataset)
    use_legacy_sql = each.value.view.useLegacySql
  }

  depends_on = [google_bigquery_table.tables]
}
