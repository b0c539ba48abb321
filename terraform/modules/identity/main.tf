# Who may do what: all of it, on this page. There is no key; pods, machines and Composer get tokens for their service
# account from Google.
#
# A role on the whole project is given only where Google has no smaller place for it. Files, rows, images and secrets are
# granted on their bucket, dataset, repository and secret.

locals {
  accounts = {
    nodes    = "Nodes of the Kubernetes cluster"
    jobs     = "Flink's pods: the jobs"
    api      = "The API's pods"
    batch    = "Dataproc's machines: the daily batch"
    dataflow = "Dataflow's workers: the jobs there"
    composer = "Composer: the daily DAG"
  }

  project_roles = {
    # Logs and metrics: what Google asks of a node.
    nodes = ["roles/container.defaultNodeServiceAccount"]
    jobs  = ["roles/bigquery.jobUser", "roles/managedkafka.client"]
    api   = ["roles/managedkafka.client"]
    batch = [
      "roles/bigquery.jobUser", "roles/bigquery.readSessionUser",
      "roles/biglake.editor", "roles/serviceusage.serviceUsageConsumer",
    ]
    # dataflow.developer: a flex template's launcher runs as the workers' account, and starts the job.
    dataflow = ["roles/bigquery.jobUser", "roles/dataflow.developer", "roles/managedkafka.client"]
    # composer.worker is what Composer asks of an environment's account; it reads and writes all buckets of the project.
    composer = ["roles/composer.worker", "roles/dataproc.editor"]
  }

  # These roles hold the right to read and write every bucket of the project. They are needed for a few, and a condition
  # leaves only those: scratch, and for Dataproc the bucket for Spark's logs, which it makes for itself in each region.
  worker_roles = {
    batch    = { role = "roles/dataproc.worker", buckets = [var.buckets["scratch"], "dataproc-temp-"] }
    dataflow = { role = "roles/dataflow.worker", buckets = [var.buckets["scratch"]] }
  }

  bucket_roles = {
    jobs = {
      state   = ["roles/storage.objectUser", local.see_bucket]
      archive = ["roles/storage.objectUser", local.see_bucket]
    }
    batch = {
      archive   = ["roles/storage.objectViewer", local.see_bucket]
      lakehouse = ["roles/storage.objectUser", local.see_bucket]
      templates = ["roles/storage.objectViewer", local.see_bucket]
      scratch   = ["roles/storage.objectUser", local.see_bucket]
    }
    dataflow = {
      archive   = ["roles/storage.objectUser"]
      templates = ["roles/storage.objectViewer"]
      scratch   = ["roles/storage.objectUser", local.see_bucket]
    }
    api      = { lakehouse = ["roles/storage.objectViewer"] }
    composer = { scratch = ["roles/storage.objectViewer"] }
  }

  # The API tells what the batch's reports say. It may also list names: without that, Google answers 403 and not 404 for a
  # report that is not there yet.
  only_reports = ["api lakehouse roles/storage.objectViewer"]

  # Hadoop's file system asks for the bucket itself, which the roles for objects do not allow.
  see_bucket = "roles/storage.legacyBucketReader"

  dataset_roles = {
    jobs     = "roles/bigquery.dataEditor"
    batch    = "roles/bigquery.dataViewer"
    dataflow = "roles/bigquery.dataEditor"
  }

  reads_images = ["nodes", "dataflow"]

  # In the cluster, pods have it from a Secret of Kubernetes.
  reads_redis = ["dataflow"]

  # As Google forms them, and so known to a plan; taken from the account, so that it is there before it is granted anything.
  email  = { for name, account in google_service_account.this : name => "${account.account_id}@${var.project_id}.iam.gserviceaccount.com" }
  name   = { for name, email in local.email : name => "projects/${var.project_id}/serviceAccounts/${email}" }
  member = { for name, email in local.email : name => "serviceAccount:${email}" }
}

resource "google_service_account" "this" {
  for_each = local.accounts

  project      = var.project_id
  account_id   = "streamforge-${each.key}"
  display_name = each.value
}

resource "google_project_iam_member" "this" {
  for_each = merge([
    for account, roles in local.project_roles : { for role in roles : "${account} ${role}" => { account = account, role = role } }
  ]...)

  project = var.project_id
  role    = each.value.role
  member  = local.member[each.value.account]
}

resource "google_project_iam_member" "workers" {
  for_each = local.worker_roles

  project = var.project_id
  role    = each.value.role
  member  = local.member[each.key]

  condition {
    title       = "files-of-scratch-only"
    description = "Everything but files, and the files that workers leave behind."
    expression = join(" || ", concat(
      ["resource.service != \"storage.googleapis.com\""],
      [for name in each.value.buckets : "resource.name.startsWith(\"projects/_/buckets/${name}\")"],
    ))
  }
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = merge(flatten([
    for account, buckets in local.bucket_roles : [
      for bucket, roles in buckets : { for role in roles : "${account} ${bucket} ${role}" => { account = account, bucket = bucket, role = role } }
    ]
  ])...)

  bucket = var.buckets[each.value.bucket]
  role   = each.value.role
  member = local.member[each.value.account]

  dynamic "condition" {
    for_each = contains(local.only_reports, each.key) ? [var.buckets[each.value.bucket]] : []
    content {
      title      = "names-and-reports-only"
      expression = "resource.name == \"projects/_/buckets/${condition.value}\" || resource.name.startsWith(\"projects/_/buckets/${condition.value}/objects/reports/\")"
    }
  }
}

resource "google_bigquery_dataset_iam_member" "this" {
  for_each = local.dataset_roles

  project    = var.project_id
  dataset_id = var.dataset_id
  role       = each.value
  member     = local.member[each.key]
}

resource "google_artifact_registry_repository_iam_member" "this" {
  for_each = toset(local.reads_images)

  project    = var.project_id
  location   = var.registry.location
  repository = var.registry.repository
  role       = "roles/artifactregistry.reader"
  member     = local.member[each.value]
}

resource "google_secret_manager_secret_iam_member" "this" {
  for_each = merge([
    for account in local.reads_redis : { for name, id in var.redis_secret_ids : "${account} ${name}" => { account = account, secret = id } }
  ]...)

  project   = var.project_id
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = local.member[each.value.account]
}

# Composer's own service makes the environment's machines run as the account. It asks for this on the account itself.
resource "google_service_account_iam_member" "composer_agent" {
  service_account_id = local.name["composer"]
  role               = "roles/composer.ServiceAgentV2Ext"
  member             = "serviceAccount:service-${var.project_number}@cloudcomposer-accounts.iam.gserviceaccount.com"
}

# Who starts machines that run as an account must be allowed to: Composer, clusters of the batch's; a flex template's
# launcher, workers of its own. Neither may use another account so.
resource "google_service_account_iam_member" "starts_machines" {
  for_each = { composer = "batch", dataflow = "dataflow" }

  service_account_id = local.name[each.value]
  role               = "roles/iam.serviceAccountUser"
  member             = local.member[each.key]
}
