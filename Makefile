# `make help` lists the targets. Everything lives in .venv and .stack; nothing is installed outside.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

help:  ## this list
	@awk -F':.*## ' '/^[a-z_-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements-dev.txt setup.py
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || { echo "Python 3.11 or 3.12 is needed: run make PYTHON=python3.11 ..."; exit 1; }
	@command -v java >/dev/null || { echo "Java 17 is needed for Kafka and Flink: install openjdk-17-jre-headless"; exit 1; }
	@command -v mvn >/dev/null || { echo "Maven is needed to fetch Kafka, the registry and Flink: install maven"; exit 1; }
	@echo "setting up .venv ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

setup: $(STAMP)  ## the environment (.venv) and the services' files; every other target runs it first
	@$(BIN)/python -m stack fetch

check: $(STAMP)  ## format, lint, types, import directions: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -p no:cacheprovider --durations=0 tests/test_architecture.py

test: setup check  ## every test, against real Kafka, registry, Valkey and Flink
	$(BIN)/pytest

demo: setup  ## the whole system on http://127.0.0.1:8090 until Ctrl-C; DURATION=60: so many seconds; CDC=1: and a database
	@$(BIN)/python -m stack.demo $(if $(DURATION),--duration=$(DURATION)s) $(if $(CDC),--cdc)

batch: $(STAMP)  ## after a demo: DATE=YYYY-MM-DD anew from its archive by Spark, compared with the stream, published
	@$(BIN)/python -m stack.batch --date=$(or $(DATE),$(shell date -u +%F))

dag-test: $(STAMP)  ## the daily DAG on Airflow and a fake Dataproc, with the real Spark job; fetches 1.4 GB once
	STREAMFORGE_DAG_SPARK=1 $(BIN)/pytest tests/dags/test_dag.py tests/dags/test_dag_spark.py

test-deploy: $(STAMP)  ## chart, Terraform, images, alerts, with their own tools: needs Go, and Debian or Ubuntu
	$(BIN)/pytest -m deploy

bench: setup  ## drain a million orders, beside peers; and the latency from order to alert
	$(BIN)/python -m bench throughput
	$(BIN)/python -m bench latency

screenshots: setup  ## docs/dashboard-*.png anew, of a demo that runs or of its own
	$(BIN)/python -m tests.screenshots

lock: $(STAMP)  ## write requirements*.txt anew from the ranges in setup.py
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra serving --extra gcp setup.py -o requirements.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra serving --extra gcp --extra stack --extra dev --extra bench -c requirements.txt setup.py -o requirements-dev.txt

clean:  ## stop the local stack and delete its data, not what was downloaded
	-@$(BIN)/python -m stack down
	rm -rf .stack

.PHONY: help setup check test demo batch dag-test test-deploy bench screenshots lock clean
