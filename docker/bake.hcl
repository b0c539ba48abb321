# The images: `docker buildx bake --file docker/bake.hcl`, from the top of the checkout; `… flex` for those of Dataflow's
# flex templates. With REGISTRY=europe-docker.pkg.dev/PROJECT/streamforge/ TAG=1.2.3 and --push: to there.

variable "REGISTRY" {
  default = ""
}

variable "TAG" {
  default = "dev"
}

variable "REVISION" {
  default = ""
}

group "default" {
  targets = ["api", "cdc", "flink", "launcher", "simulator", "worker"]
}

target "_ours" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  labels = {
    "org.opencontainers.image.licenses" = "Apache-2.0"
    "org.opencontainers.image.revision" = "${REVISION}"
    "org.opencontainers.image.version"  = "${TAG}"
  }
}

target "api" {
  inherits = ["_ours"]
  target   = "api"
  tags     = ["${REGISTRY}streamforge-api:${TAG}"]
}

target "cdc" {
  inherits = ["_ours"]
  target   = "cdc"
  tags     = ["${REGISTRY}streamforge-cdc:${TAG}"]
}

target "flink" {
  inherits = ["_ours"]
  target   = "flink"
  tags     = ["${REGISTRY}streamforge-flink:${TAG}"]
}

target "launcher" {
  inherits = ["_ours"]
  target   = "launcher"
  tags     = ["${REGISTRY}streamforge-launcher:${TAG}"]
}

target "simulator" {
  inherits = ["_ours"]
  target   = "simulator"
  tags     = ["${REGISTRY}streamforge-simulator:${TAG}"]
}

target "worker" {
  inherits = ["_ours"]
  target   = "worker"
  tags     = ["${REGISTRY}streamforge-worker:${TAG}"]
}

target "flex" {
  inherits = ["_ours"]
  matrix = {
    # jobs: make generate
    job = ["fraud", "sessions", "revenue", "archive", "cdc"]
    # end of jobs
  }
  name   = "flex-${job}"
  target = "flex"
  args = {
    JOB          = "${job}"
    WORKER_IMAGE = "${REGISTRY}streamforge-worker:${TAG}"
  }
  tags = ["${REGISTRY}streamforge-flex-${job}:${TAG}"]
}
