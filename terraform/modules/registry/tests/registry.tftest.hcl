mock_provider "google" {}

variables {
  project_id = "shop-prod"
  region     = "europe-west1"
  labels     = {}
}

run "tags_stay" {
  assert {
    condition     = one(google_artifact_registry_repository.this.docker_config).immutable_tags
    error_message = "A tag, once pushed, stays what it is."
  }
}

run "tags_that_move_are_no_difference_for_ever" {
  variables {
    immutable_tags = false
  }

  assert {
    condition     = length(google_artifact_registry_repository.this.docker_config) == 0
    error_message = "Google answers without the block, so it must not be written either."
  }
}
