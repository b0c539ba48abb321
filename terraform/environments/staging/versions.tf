terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }

  # The bucket is named at the start: terraform init -backend-config=bucket=NAME (docs/terraform.md).
  backend "gcs" {
    prefix = "streamforge/staging"
  }
}

provider "google" {
  project = var.project_id
  region  = var.region

  # Budgets are refused to people who do not say which project asks.
  user_project_override = true
  billing_project       = var.project_id
}
