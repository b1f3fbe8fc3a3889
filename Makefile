# `make help` lists what this file can do. Everything runs from .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(BIN)/uv
LOCK := $(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements-dev.txt
	@echo "creating $(VENV) (once; a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## Create the virtual environment

.PHONY: demo
demo: $(READY) ## Run the main job: two simulated GPU nodes, pods, claims, CDI; no cluster, no GPU
	@$(BIN)/dra sandbox run

.PHONY: test
test: $(READY) ## Run the tests
	@$(BIN)/python -m pytest

.PHONY: test-cluster
test-cluster: $(READY) ## Run the tests on a real control plane (builds it the first time: a quarter of an hour)
	@$(BIN)/python -m tests.cluster.programs
	@$(BIN)/python -m pytest -m "cluster and not node"

.PHONY: test-node
test-node: $(READY) ## Run the tests on a real kubelet and containerd (root, runc, busybox-static)
	@$(BIN)/python -m tests.cluster.programs
	@$(BIN)/python -m pytest -m node

.PHONY: test-faults
test-faults: $(READY) ## Run the long tests of kills and outages (some minutes)
	@$(BIN)/python -m pytest -m faults

.PHONY: bench
bench: $(READY) ## Measure the plugin beside its peers and say which bars hold (six to twelve minutes)
	@$(BIN)/python -m tests.bench

.PHONY: kind
kind: ## Try image, chart and quickstart on a kind cluster (docker, kind, helm, kubectl)
	@tests/kind/run.sh

.PHONY: lint
lint: $(READY) ## Check style, formatting and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

.PHONY: type
type: $(READY) ## Check types, strictly
	@$(BIN)/mypy

.PHONY: check
check: lint type test ## Everything that must hold before a commit

.PHONY: fmt
fmt: $(READY) ## Format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: generate
generate: $(READY) ## Regenerate the gRPC code, the tables of the docs, and what the chart has of other parts
	@$(BIN)/python -m tests.generate
	@$(BIN)/python -m tests.chart.generate
	@$(BIN)/python -m tests.documentation

.PHONY: lock
lock: $(READY) ## Recompile the pinned requirements (hashes, no index addresses)
	@$(LOCK) --extra cel --output-file requirements.txt pyproject.toml
	@echo hatchling | $(LOCK) --constraint requirements.txt --output-file requirements-build.txt -
	@$(LOCK) --extra cel --group dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml

.PHONY: clean
clean: ## End the sandbox in this folder; remove the virtual environment, what was built and every cache
	@[ ! -e .sandbox ] || [ ! -x $(BIN)/dra ] || $(BIN)/dra sandbox down
	@rm -rf $(VENV) dist .sandbox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
