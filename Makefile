# Perennial on one machine. `make` or `make help` lists the verbs.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The Python that makes the environment: 3.11 or 3.12. Empty: the first of python3.11, python3.12, python3 that is one.
PYTHON ?=
# cpu, or what `uv pip install --torch-backend` takes: cu126, auto, …
TORCH_BACKEND ?= cpu

# Where the programs listen, all on 127.0.0.1.
AIRFLOW_PORT ?= 8080
MLFLOW_PORT ?= 5000
SERVING_PORT ?= 3000
# The folder where payments and labels land; empty: landing/ under the state folder.
LANDING ?=
# What images are called: <IMAGES>/airflow:<TAG>, …/training, …/serving, …/mlflow.
IMAGES ?= perennial
TAG ?= dev
# Everything that is kept between runs.
STATE ?= .perennial

# Airflow, MLflow and the steps import hundreds of modules: they must be compiled once, not at every start.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# What runs the loop is installed; what tests and lint need is installed as well.
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
LOCAL = AIRFLOW_PORT=$(AIRFLOW_PORT) MLFLOW_PORT=$(MLFLOW_PORT) SERVING_PORT=$(SERVING_PORT) \
	CT_HOME="$(STATE)" CT_LANDING_URI="$(LANDING)" $(BIN)/python -m local

.PHONY: help
help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.txt local/setup.sh
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" bash local/setup.sh $(VENV)
	@touch $@

$(DEV_READY): $(READY)
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" bash local/setup.sh $(VENV) dev
	@touch $@

.PHONY: setup
setup: $(READY) ## Make the environment, .venv, from the lock: what runs the loop

.PHONY: setup-dev
setup-dev: $(DEV_READY) ## The same, with what tests and lint need

.PHONY: demo
demo: $(READY) ## The whole story, from first data to a retrained champion (ARGS=--exit: end when it is told)
	@$(LOCAL) demo $(ARGS)

.PHONY: up
up: $(READY) ## The stack on your own landing folder (LANDING=dir)
	@$(LOCAL) up

.PHONY: down
down: $(READY) ## Stop the stack; nothing is lost
	@$(LOCAL) down

.PHONY: status
status: $(READY) ## What runs, where, and how to log in
	@$(LOCAL) status

.PHONY: clean
clean: ## Stop the stack and delete its state
	@if [ -f $(READY) ]; then $(LOCAL) clean; else rm -rf "$(STATE)"; fi

.PHONY: step
step: export STEP_INPUTS = $(or $(INPUTS),{})
step: $(READY) ## Run one step by hand (STEP=ingest INPUTS='{"model": …}' or INPUTS=@file)
	@test -n "$(STEP)" || { echo "Name a step: make step STEP=drift INPUTS='{\"model\": \"card_fraud\"}'"; exit 1; }
	@$(LOCAL) step $(STEP) --inputs "$$STEP_INPUTS"

.PHONY: check
check: $(READY) ## Find the mistakes in every model's three files (MODEL=name: in one model's)
	@CT_HOME="$(STATE)" $(BIN)/python -m training.check $(MODEL)

.PHONY: ledger-verify
ledger-verify: $(READY) ## Check that no ledger entry was altered or removed (MODEL=m: of one model)
	@$(LOCAL) ledger-verify $(MODEL)

.PHONY: api-key
api-key: $(READY) ## Make an API key for the prediction service (NAME=who ROLE=predict|admin)
	@test -n "$(NAME)" || { echo "Whose key? make api-key NAME=shop"; exit 1; }
	@$(BIN)/python -m serving.keys "$(NAME)" $(ROLE)

# tests/conftest.py says which tests stay in one worker process.
PYTEST_RUN = $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder --durations 10
# Their imports take no second.
FAST_TESTS := tests/contract tests/docs tests/domain tests/local tests/storage

.PHONY: test
test: $(DEV_READY) ## Everything that needs nothing but Python (PYTEST='…' adds arguments)
	@$(PYTEST_RUN) -m "not airflow and not redis and not docker and not kubernetes" $(PYTEST)

.PHONY: test-fast
test-fast: $(DEV_READY) ## Lint, types, and the tests without slow imports, side by side
	@$(MAKE) --no-print-directory -j 2 lint fast-tests

.PHONY: fast-tests
fast-tests: $(DEV_READY)
	@$(PYTEST_RUN) -m "not slow and not redis" $(FAST_TESTS) $(PYTEST)

.PHONY: verify-all
verify-all: $(DEV_READY) ## .ci/run, and what takes longer: the whole soak, more generated requests, the benchmarks
	@.ci/run
	@SOAK_REQUESTS=200000 SCHEMATHESIS_EXAMPLES=500 $(BIN)/python -m pytest --durations 10 --timeout 3600 \
		tests/serving/test_soak.py tests/serving/test_openapi.py
	@$(MAKE) --no-print-directory bench-imports bench-serving bench-loop

.PHONY: lint
lint: $(DEV_READY) ## Style, types, and which room may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@PYTHONPATH=.:plugins $(BIN)/lint-imports

.PHONY: lock
lock: $(READY) ## Resolve requirements.txt anew from pyproject.toml
	@bash local/setup.sh $(VENV) lock

.PHONY: env
env: ## .env with random secrets and landing/, for `docker compose up`
	@sh deploy/env.sh

.PHONY: images
images: ## The four images (IMAGES=prefix TAG=tag TORCH_BACKEND=cpu)
	@GIT_SHA="$$(git rev-parse HEAD)" IMAGES="$(IMAGES)" TAG="$(TAG)" TORCH_BACKEND="$(TORCH_BACKEND)" sh deploy/images.sh

.PHONY: docs
docs: $(READY) ## Write docs/reference.md anew from the contracts
	@$(BIN)/python -m training.reference > docs/reference.md

.PHONY: land-handbook
land-handbook: $(READY) ## The handbook's daily files as a landing folder (DATA=dir LANDING=dir ARGS=…)
	@test -n "$(DATA)" || { echo "Name the folder of the daily files: make land-handbook DATA=dir"; exit 1; }
	@$(BIN)/python -m local.handbook --data "$(DATA)" --landing "$(or $(LANDING),$(STATE)/landing)" $(ARGS)

.PHONY: bench-handbook
bench-handbook: $(READY) ## The handbook's protocol A through our own steps (DATA=dir)
	@test -n "$(DATA)" || { echo "Name the folder of the daily files: make bench-handbook DATA=dir"; exit 1; }
	@$(BIN)/python -m benchmarks.handbook_protocol "$(DATA)" $(ARGS)

.PHONY: bench-loop
bench-loop: $(READY) ## What the loop costs beyond its steps
	@$(BIN)/python -m benchmarks.loop $(ARGS)

.PHONY: bench-idle
bench-idle: $(READY) ## What the stack uses of a core while nothing happens (measure on a quiet machine)
	@$(BIN)/python -m benchmarks.idle $(ARGS)

.PHONY: bench-imports
bench-imports: $(READY) ## What a step's process spends before the step begins
	@$(BIN)/python -m benchmarks.imports $(ARGS)

.PHONY: bench-serving
bench-serving: $(READY) ## The prediction service against its yardsticks (needs wrk and redis-server)
	@$(BIN)/python -m benchmarks.serving $(ARGS)

.PHONY: bench-generator
bench-generator: $(READY) ## Rows per second of the generator
	@$(BIN)/python -m benchmarks.generator_speed $(ARGS)

.PHONY: bench-soak
bench-soak: $(READY) ## 200,000 requests while versions swap and parts fail (ARGS='--requests 10000 --swaps 5')
	@$(BIN)/python -m benchmarks.soak $(ARGS)
