# Whoever builds images and templates: a repository's workflows at GitHub, which get a token for a service account because
# of where they run. No key is stored there. They may push images and write templates and code; rolling out is not theirs.

resource "google_iam_workload_identity_pool" "this" {
  project                   = var.project_id
  workload_identity_pool_id = var.pool_id
  description               = "Workflows that push StreamForge's images."
}

resource "google_iam_workload_identity_pool_provider" "github" {
  #checkov:skip=CKV_GCP_125:The condition asks for repository and ref; the check knows one subject only, and tags have many
  project                            = var.project_id
  workload_identity_pool_id          = google_iam_workload_identity_pool.this.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"

  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }

  # Not from a branch that anybody may push, and not from a pull request.
  attribute_condition = "assertion.repository == \"${var.github_repository}\" && (assertion.ref == \"refs/heads/main\" || assertion.ref.startsWith(\"refs/tags/v\"))"

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account" "this" {
  project      = var.project_id
  account_id   = "streamforge-delivery"
  display_name = "Workflows that push images and templates"
}

locals {
  email = "${google_service_account.this.account_id}@${var.project_id}.iam.gserviceaccount.com"
}

resource "google_service_account_iam_member" "github" {
  service_account_id = "projects/${var.project_id}/serviceAccounts/${local.email}"
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.this.name}/attribute.repository/${var.github_repository}"
}

resource "google_artifact_registry_repository_iam_member" "push" {
  project    = var.project_id
  location   = var.registry.location
  repository = var.registry.repository
  role       = "roles/artifactregistry.writer"
  member     = "serviceAccount:${local.email}"
}

resource "google_storage_bucket_iam_member" "templates" {
  bucket = var.templates_bucket
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${local.email}"
}
