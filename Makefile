# `make help` lists the targets. Everything lives in .venv and .stack; nothing is installed outside.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Where this is set, each of the many processes of a demo or a test would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE
# Which Python makes .venv; .ci/python looks for one that fits where this is empty.
PYTHON ?=
BIN := .venv/bin
STAMP := .venv/.ready
# A file of tests stays in one process, with the services that it shares. The first are those that take longest.
# How many processes: tests/conftest.py, ADR 55.
JOBS ?= auto
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile --no-loadscope-reorder

help:  ## this list
	@awk -F':.*## ' '/^[a-z_-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements-dev.txt setup.py
	@python=$$(.ci/python $(PYTHON)) && $$python -m stack.java >/dev/null
	@command -v mvn >/dev/null || { echo "Maven is needed to fetch Kafka, the registry and Flink: install maven"; exit 1; }
	@# A .venv of another Python is made anew; one that fits stays.
	@python=$$(.ci/python $(PYTHON)) && { .ci/python $(BIN)/python >/dev/null 2>&1 && test -z "$(PYTHON)" \
	  || { echo "setting up .venv with $$python ..."; $$python -m venv --clear .venv; }; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

setup: $(STAMP)  ## the environment (.venv) and the services' files; every other target runs it first
	@$(BIN)/python -m stack fetch

check: $(STAMP)  ## format, lint, types, import directions, licences: under a minute
	$(BIN)/python -m tests.licences
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -p no:cacheprovider --durations=0 tests/test_architecture.py

test: setup check  ## every test, against real Kafka, registry, Valkey and Flink; JOBS=2: so many files at a time
	$(BIN)/pytest $(SIDE_BY_SIDE)

test-fast: $(STAMP)  ## the tests that need no services
	$(BIN)/pytest $(SIDE_BY_SIDE) -m 'not stack and not deploy'

mutants: setup  ## plants each fault of tests/mutants/faults.toml in a copy of the tree, and says which test notices
	@$(BIN)/python -m tests.mutants

fuzz: $(STAMP)  ## every parser of outside bytes, guided by coverage: SECONDS=60 each, 0 for ever; TARGET=avro; ARGS=--help
	@$(BIN)/python -m tests.fuzz --by=coverage --seconds=$(or $(SECONDS),60) $(if $(TARGET),--target=$(TARGET)) $(ARGS)

simulate: $(STAMP)  ## real jobs on a simulated Kafka, clock and runner, with faults: SEEDS=300 of them; ARGS=--help
	@$(BIN)/python -m simulation --seeds=$(or $(SEEDS),300) $(ARGS)

demo: setup  ## the whole system on http://127.0.0.1:8090 until Ctrl-C; DURATION=60: so many seconds; CDC=1: a database; SECURE=1: TLS, passwords; CURRENCIES=TRY,EUR,JPY
	@$(BIN)/python -m stack.demo $(if $(DURATION),--duration=$(DURATION)s) $(if $(CDC),--cdc) $(if $(SECURE),--secure) $(if $(CURRENCIES),--currencies=$(CURRENCIES))

soak: setup  ## does anything grow? the demo's jobs for HOURS=0.7 with short windows: sizes over time, a slope each
	@$(BIN)/python -m stack.soak --hours=$(or $(HOURS),0.7)

batch: $(STAMP)  ## after a demo: DATE=YYYY-MM-DD anew from its archive by Spark, compared with the stream, published
	@$(BIN)/python -m stack.batch --date=$(or $(DATE),$(shell date -u +%F))

dag-test: $(STAMP)  ## the daily DAG on Airflow and a fake Dataproc, with the real Spark job; fetches 1.4 GB once
	STREAMFORGE_DAG_SPARK=1 $(BIN)/pytest tests/dags/test_dag.py tests/dags/test_dag_spark.py

test-deploy: $(STAMP)  ## chart, Terraform, images, alerts: needs Go, Terraform; Debian or Ubuntu, buildah, debootstrap, root
	$(BIN)/pytest -m deploy

chart: $(STAMP)  ## build/chart/*.yaml: what the chart makes for each environment
	@mkdir -p build/chart
	@for environment in dev staging prod; do $(BIN)/python -m tests.tools helm template streamforge helm/streamforge --namespace streamforge --kube-version 1.31 --values helm/streamforge/values-$$environment.yaml --values tests/helm/terraform/$$environment.yaml > build/chart/$$environment.yaml || exit 1; echo "build/chart/$$environment.yaml"; done

sbom: $(STAMP)  ## build/sbom/*.json (CycloneDX): what the images have of Python, and what the Flink job server is made of
	@mkdir -p build/sbom
	@for image in api cdc simulator worker; do $(BIN)/cyclonedx-py requirements docker/requirements/$$image.txt --output-reproducible --of JSON -o build/sbom/$$image.json || exit 1; echo "build/sbom/$$image.json"; done
	@cat docker/requirements/worker.txt docker/requirements/launcher.txt | $(BIN)/cyclonedx-py requirements - --output-reproducible --of JSON -o build/sbom/launcher.json && echo build/sbom/launcher.json
	@mvn -q -B -Dstyle.color=never -f stack/maven/flink-job-server/pom.xml org.cyclonedx:cyclonedx-maven-plugin:2.9.1:makeBom -DoutputFormat=json -DoutputDirectory=$(CURDIR)/build/sbom -DoutputName=flink-job-server
	@echo build/sbom/flink-job-server.json

# What stands before the images' names in what is packaged, and what `docker buildx bake --metadata-file` said of them.
IMAGES ?= streamforge.example/images
DIGESTS ?=
package: $(STAMP)  ## build/release: the chart, Dataflow's templates, Terraform's modules, checksums; IMAGES=PREFIX
	@rm -rf build/release && mkdir -p build/release/dataflow
	@$(BIN)/python -m tests.tools helm package helm/streamforge --destination build/release
	@version=$$(sed -n 's/^version: //p' helm/streamforge/Chart.yaml) \
	  && $(BIN)/python -m beam_pipelines.templates specs --to=build/release/dataflow --images=$(IMAGES) --tag=$$version >/dev/null \
	  && tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C build/release -czf build/release/dataflow-templates-$$version.tgz dataflow \
	  && git archive --format=tgz --prefix=terraform-$$version/ HEAD:terraform -o build/release/terraform-$$version.tgz
	@rm -r build/release/dataflow
	@if test -n "$(DIGESTS)"; then .ci/release values $(DIGESTS) > build/release/values-images.yaml; fi
	@cd build/release && sha256sum * > SHA256SUMS && cat SHA256SUMS

push-chart: $(STAMP)
	@$(BIN)/python -m tests.tools helm push build/release/streamforge-*.tgz $(TO) 2>&1 | sed -n 's/^Pushed: \(.*\):.*/\1/p; s/^Digest: /@/p' | tr -d '\n'

release-check: test test-deploy chart sbom package  ## all that a release needs and no cloud: tests, manifests, SBOM, package

bench: setup  ## drain a million orders, beside peers; and the latency from order to alert
	$(BIN)/python -m bench throughput
	$(BIN)/python -m bench latency

screenshots: setup  ## docs/dashboard-*.png anew, of a demo that runs or of its own
	$(BIN)/python -m tests.screenshots

generate: $(STAMP)  ## all that follows from declarations: templates, chart, compose, Terraform, dashboards, tables in docs
	@$(BIN)/python -m beam_pipelines.generate

COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links
lock: $(STAMP)  ## write requirements*.txt anew from the ranges in setup.py, for every Python that is supported
	$(COMPILE) --universal --python-version 3.11 --extra serving --extra gcp setup.py -o requirements.txt
	$(COMPILE) --universal --python-version 3.11 --extra serving --extra gcp --extra stack --extra dev --extra bench -c requirements.txt setup.py -o requirements-dev.txt
	@# Of images: 3.11.2 is Debian's Python.
	for i in api build cdc launcher simulator worker; do $(COMPILE) --no-annotate --python-version 3.11.2 -c requirements-dev.txt docker/requirements/$$i.in -o docker/requirements/$$i.txt || exit 1; done

clean:  ## stop the local stack and delete its data, not what was downloaded
	-@$(BIN)/python -m stack down
	rm -rf .stack

.PHONY: help setup check test test-fast mutants fuzz simulate demo soak batch dag-test test-deploy chart sbom package push-chart release-check bench screenshots generate lock clean
