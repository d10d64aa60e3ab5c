# Perennial on one machine. `make` or `make help` lists the commands.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The Python of the environment, 3.11 or 3.12. Empty: the first of python3.11, python3.12, python3 with such a version.
PYTHON ?=
# cpu, or another value of `uv pip install --torch-backend`: cu126, auto, …
TORCH_BACKEND ?= cpu

# The programs' ports, all on 127.0.0.1.
AIRFLOW_PORT ?= 8080
MLFLOW_PORT ?= 5000
SERVING_PORT ?= 3000
# The folder where payments and labels land; empty: landing/ under the state folder.
LANDING ?=
# Names of the images: <IMAGES>/airflow:<TAG>, …/training, …/serving, …/mlflow, …/backup, …/spark.
IMAGES ?= perennial
TAG ?= dev
# The folder of all state that is kept between runs.
STATE ?= .perennial

# Airflow, MLflow and the steps import hundreds of modules. Compile them once, not at every start.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# READY: what runs the loop is installed. DEV_READY: what tests and lint need is installed as well.
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
LOCAL = AIRFLOW_PORT=$(AIRFLOW_PORT) MLFLOW_PORT=$(MLFLOW_PORT) SERVING_PORT=$(SERVING_PORT) \
	CT_HOME="$(STATE)" CT_LANDING_URI="$(LANDING)" $(BIN)/python -m local

.PHONY: help
help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.txt local/setup.sh
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" bash local/setup.sh $(VENV)
	@touch $@

$(DEV_READY): $(READY)
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" bash local/setup.sh $(VENV) dev
	@touch $@

.PHONY: setup
setup: $(READY) ## Install what runs the loop into .venv, from the lock

.PHONY: setup-dev
setup-dev: $(DEV_READY) ## Also install what tests and lint need

.PHONY: demo
demo: $(if $(filter flight_delay,$(MODEL)),$(DEV_READY),$(READY)) ## Run the demo, from first data to a retrained champion (MODEL=card_fraud|flight_delay ARGS=--exit: stop afterwards)
	@$(LOCAL) demo $(if $(MODEL),--model $(MODEL)) $(ARGS)

.PHONY: up
up: $(READY) ## Start the stack on your own landing folder (LANDING=dir)
	@$(LOCAL) up

.PHONY: down
down: $(READY) ## Stop the stack and keep its state
	@$(LOCAL) down

.PHONY: status
status: $(READY) ## Show what runs, the champion of each model, the addresses and the login
	@$(LOCAL) status

.PHONY: clean
clean: ## Stop the stack and delete its state
	@if [ -f $(READY) ]; then $(LOCAL) clean; else rm -rf "$(STATE)"; fi

.PHONY: step
step: export STEP_INPUTS = $(or $(INPUTS),{})
step: $(READY) ## Run one step by hand (STEP=ingest INPUTS='{"source": …}' or INPUTS=@file)
	@test -n "$(STEP)" || { echo "Name a step: make step STEP=drift INPUTS='{\"model\": \"card_fraud\"}'"; exit 1; }
	@$(LOCAL) step $(STEP) --inputs "$$STEP_INPUTS"

.PHONY: rerun
rerun: $(READY) ## Run the step of a failed task again on a copy of the state (TASK='dag task [run] [index]' or LOG=file; PDB=1)
	@$(LOCAL) rerun --task "$$TASK" --log "$$LOG" --step "$$STEP" --inputs "$$INPUTS" --copy "$(COPY)" \
		$(if $(PDB),--in-debugger)

.PHONY: check
check: $(READY) ## Find mistakes in the files of all sources and models (SOURCE=s, MODEL=m: of one)
	@CT_HOME="$(STATE)" $(BIN)/python -m training.check $(if $(SOURCE),--source $(SOURCE)) $(if $(MODEL),--model $(MODEL))

.PHONY: new-source
new-source: $(READY) ## Write the spec of a source from a sample (NAME=s DATA=file LABELS=columns or file; TIME= ID= ENTITY=)
	@test -n "$(NAME)" -a -n "$(DATA)" || { echo "Name both: make new-source NAME=my_source DATA=sample.parquet LABELS=column"; exit 1; }
	@$(LOCAL) onboard new-source --name "$(NAME)" --data "$(DATA)" --labels "$(LABELS)" --time "$(TIME)" --id "$(ID)" \
		--entity "$(ENTITY)" --labels-time "$(LABELS_TIME)" --positive "$(POSITIVE)" --owner "$(OWNER)"

.PHONY: new-model
new-model: $(READY) ## Write the spec of a model (NAME=m SOURCE=s; LABEL=column TASK=binary|multiclass|regression)
	@test -n "$(NAME)" -a -n "$(SOURCE)" || { echo "Name both: make new-model NAME=my_model SOURCE=my_source"; exit 1; }
	@$(LOCAL) onboard new-model --name "$(NAME)" --source "$(SOURCE)" --label "$(LABEL)" --task "$(TASK)" \
		$(if $(DATA),--data "$(DATA)") $(if $(LABELS),--labels "$(LABELS)") --positive "$(POSITIVE)" --owner "$(OWNER)"

.PHONY: remove-model
remove-model: $(READY) ## Show what goes when a model is removed, and what stays (NAME=m; ARGS=--apply: remove it)
	@$(LOCAL) onboard remove-model --name "$(NAME)" $(ARGS)

.PHONY: remove-source
remove-source: $(READY) ## Show the same of a source without models (NAME=s; ARGS=--apply: remove it)
	@$(LOCAL) onboard remove-source --name "$(NAME)" $(ARGS)

.PHONY: migrate
migrate: $(READY) ## Show how specs and state of the previous version are migrated (ARGS=--apply: migrate them)
	@$(LOCAL) migrate $(ARGS)

.PHONY: verify
verify: $(READY) ## List what was changed in ledgers, registered versions and lake files after it was written
	@$(LOCAL) verify

.PHONY: ledger-verify
ledger-verify: $(READY) ## Check that no ledger entry was altered or removed (MODEL=m: of one model)
	@$(LOCAL) ledger-verify $(MODEL)

.PHONY: evidence
evidence: $(READY) ## Fetch the evidence page of a version (MODEL=m VERSION=v; default: the champion)
	@test -n "$(MODEL)" || { echo "Which model? make evidence MODEL=card_fraud"; exit 1; }
	@$(LOCAL) evidence $(MODEL) $(VERSION)

.PHONY: forget
forget: export FORGET_ENTITY = $(ENTITY)
forget: $(READY) ## Remove the rows of a person (SOURCE=s ENTITY=column=value; ARGS=--dry-run: only say what would go)
	@test -n "$(SOURCE)" -a -n "$$FORGET_ENTITY" || { echo "Which? make forget SOURCE=card_payments ENTITY=customer_id=7"; exit 1; }
	@$(LOCAL) forget "$(SOURCE)" "$$FORGET_ENTITY" $(ARGS)

.PHONY: sign
sign: $(READY) ## Sign versions registered before there was a key (MODEL=m VERSION='1 2'; default: those with an alias)
	@test -n "$(MODEL)" || { echo "Which model? make sign MODEL=card_fraud"; exit 1; }
	@$(LOCAL) sign $(MODEL) $(VERSION)

.PHONY: reproduce
reproduce: $(READY) ## Train a version again from its recipe and compare (MODEL=m VERSION=v; default: the champion)
	@test -n "$(MODEL)" || { echo "Which model? make reproduce MODEL=card_fraud"; exit 1; }
	@$(LOCAL) step reproduce --inputs '{"model": "$(MODEL)", "version": $(if $(VERSION),"$(VERSION)",null)}'

# The inputs of the step, as JSON.
NOTHING :=
COMMA := ,
DAY = $(if $(1),"$(1)",null)
LISTED = $(if $(strip $(1)),"$(subst $(NOTHING) $(NOTHING),"$(COMMA) ",$(strip $(1)))")
BACKTEST = "model": "$(MODEL)", "policies": [$(call LISTED,$(POLICIES))], "start": $(call DAY,$(FROM)), "end": $(call DAY,$(TO))

.PHONY: backtest
backtest: $(READY) ## Compare retraining policies on past days (MODEL=m POLICIES='weekly drift' FROM=day TO=day; default: all)
	@test -n "$(MODEL)" || { echo "Which model? make backtest MODEL=card_fraud"; exit 1; }
	@$(LOCAL) step backtest --inputs '{$(BACKTEST)}'

.PHONY: backup
backup: $(READY) ## Back up the whole state and check the copy; the stack may run (CT_BACKUP_URI: where)
	@$(LOCAL) backup make

.PHONY: verify-backup
verify-backup: $(READY) ## Name what is missing or altered in a backup (BACKUP=name or folder; default: the newest)
	@$(LOCAL) backup verify "$(BACKUP)"

.PHONY: restore
restore: $(READY) ## Restore a backup into an empty state folder (BACKUP=name or folder; default: the newest)
	@$(LOCAL) backup restore "$(BACKUP)"

.PHONY: restore-online
restore-online: $(READY) ## Fill the online store again from the lake; the stack may run (SOURCE=s: of one source)
	@$(LOCAL) restore-online $(SOURCE)

.PHONY: api-key
api-key: $(READY) ## Make an API key for the prediction service (NAME=who ROLE=predict|admin)
	@test -n "$(NAME)" || { echo "Whose key? make api-key NAME=shop"; exit 1; }
	@$(BIN)/python -m serving.keys "$(NAME)" $(ROLE)

# tests/conftest.py says which tests stay in one worker process.
PYTEST_RUN = $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations 10
# Tests whose imports take about a second, and that start no program.
FAST_TESTS := tests/contract tests/docs tests/domain

.PHONY: test
test: $(DEV_READY) ## Run the tests that need only Python, without those marked ci or long (PYTEST='…' adds arguments)
	@$(PYTEST_RUN) -m "not ci and not long and not airflow and not redis and not docker and not kubernetes and not spark" $(PYTEST)

.PHONY: test-fast
test-fast: $(DEV_READY) ## Run lint, types, and the tests without slow imports, in parallel
	@$(MAKE) --no-print-directory -j 2 lint fast-tests

.PHONY: fast-tests
fast-tests: $(DEV_READY)
	@$(PYTEST_RUN) -m "not ci and not long and not redis" $(FAST_TESTS) $(PYTEST)

.PHONY: verify-all
verify-all: $(DEV_READY) ## Run .ci/run, the long tests, the full soak test, more generated requests, chaos and the benchmarks
	@.ci/run
	@.ci/run long
	@SOAK_REQUESTS=200000 SCHEMATHESIS_EXAMPLES=500 $(BIN)/python -m pytest --durations 10 --timeout 3600 \
		tests/serving/test_soak.py tests/serving/test_openapi.py
	@$(MAKE) --no-print-directory chaos bench-imports bench-serving bench-loop

.PHONY: chaos
chaos: $(DEV_READY) ## Kill processes of a loop 50 times at random; it must end as an undisturbed one (ARGS='--kills 50 --seed 0')
	@$(BIN)/python -m testing.chaos $(ARGS)

# Three targets, so that `make -j` runs them side by side.
.PHONY: lint
lint: style types contracts ## Check style, types and the import contracts

.PHONY: style
style: $(DEV_READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: types
types: $(DEV_READY)
	@$(BIN)/mypy

.PHONY: contracts
contracts: $(DEV_READY)
	@PYTHONPATH=.:plugins $(BIN)/lint-imports

.PHONY: lock
lock: $(READY) ## Resolve requirements.txt from pyproject.toml
	@bash local/setup.sh $(VENV) lock

.PHONY: env
env: ## Write .env with random secrets and make landing/, for `docker compose up`
	@sh deploy/env.sh

.PHONY: pin-images
pin-images: ## Write the digests of the images of other projects into .env (needs Docker and a registry)
	@sh deploy/pin-images.sh

.PHONY: images
images: ## Build the images (IMAGES=prefix TAG=tag TORCH_BACKEND=cpu; EXTRAS=spark: for CT_ENGINE=spark, and Spark's)
	@GIT_SHA="$$(git rev-parse HEAD)" IMAGES="$(IMAGES)" TAG="$(TAG)" TORCH_BACKEND="$(TORCH_BACKEND)" sh deploy/images.sh

.PHONY: docs
docs: $(DEV_READY) ## Generate docs/reference.md from the contracts, docs/licences.md from the packages of the lock
	@$(BIN)/python -m training.reference > docs/reference.md
	@$(BIN)/python -m training.licences > docs/licences.md

.PHONY: sbom
sbom: $(READY) ## Print the bill of materials of this environment (CycloneDX); each image has one in /usr/share/perennial
	@$(BIN)/python -m training.sbom

.PHONY: land
land: $(READY) ## Land a file as partitions of a source (NAME=s DATA=file LABELS=file LANDING=dir ARGS='--start 2013-01-01 …')
	@test -n "$(NAME)" || { echo "Name the source: make land NAME=my_source DATA=sample.parquet"; exit 1; }
	@$(BIN)/python -m local.land --source "$(NAME)" --landing "$(or $(LANDING),$(STATE)/landing)" \
		$(if $(DATA),--data "$(DATA)") $(if $(LABELS),--labels "$(LABELS)") --positive "$(POSITIVE)" $(ARGS)

.PHONY: land-handbook
land-handbook: $(READY) ## Convert the handbook's daily files into a landing folder (DATA=dir LANDING=dir ARGS=…)
	@test -n "$(DATA)" || { echo "Name the folder of the daily files: make land-handbook DATA=dir"; exit 1; }
	@$(BIN)/python -m local.handbook --data "$(DATA)" --landing "$(or $(LANDING),$(STATE)/landing)" $(ARGS)

.PHONY: land-flights
land-flights: $(DEV_READY) ## Write the flights of 2013 into a landing folder (LANDING=dir ARGS='--start 2013-01-01 --end …')
	@$(BIN)/python -m local.flights --landing "$(or $(LANDING),$(STATE)/landing)" $(ARGS)

.PHONY: bench-handbook
bench-handbook: $(READY) ## Benchmark the handbook's protocol A with our steps (DATA=dir)
	@test -n "$(DATA)" || { echo "Name the folder of the daily files: make bench-handbook DATA=dir"; exit 1; }
	@$(BIN)/python -m benchmarks.handbook "$(DATA)" $(ARGS)

.PHONY: bench-flights
bench-flights: $(DEV_READY) ## Benchmark the models of the flights of 2013 with our steps (ARGS='--holdout-days 184')
	@$(BIN)/python -m benchmarks.flights $(ARGS)

.PHONY: bench-loop
bench-loop: $(READY) ## Benchmark what the loop costs in addition to its steps
	@$(BIN)/python -m benchmarks.loop $(ARGS)

.PHONY: bench-specs
bench-specs: $(READY) ## Benchmark the DAGs of 50 sources and 1,000 models (ARGS=--monitors: run all monitors, too)
	@$(BIN)/python -m benchmarks.specs $(ARGS)

.PHONY: bench-pages
bench-pages: $(READY) ## Benchmark the pages about 1,000 models in Airflow's API server
	@$(BIN)/python -m benchmarks.pages $(ARGS)

.PHONY: bench-join
bench-join: $(READY) ## Benchmark the point-in-time join of a training set against Feast's (ARGS='--data DIR')
	@$(BIN)/python -m benchmarks.point_in_time_join $(ARGS)

.PHONY: sql
sql: $(READY) ## Print the SQL of a source's feature tables, generated or written (SOURCE=s, TABLE=t: of one table)
	@test -n "$(SOURCE)" || { echo "Which source? make sql SOURCE=card_payments"; exit 1; }
	@CT_HOME="$(STATE)" $(BIN)/python -m training.print_sql $(SOURCE) $(TABLE)

.PHONY: bench-data
bench-data: $(READY) ## Benchmark the steps that move data beside public tools (DATA=dir: the handbook's payments)
	@$(BIN)/python -m benchmarks.data $(DATA) $(ARGS)

.PHONY: quarantine
quarantine: $(READY) ## List what is in quarantine: rules, rows and an example (SOURCE=s, FEED=f: of one feed)
	@test -n "$(SOURCE)" || { echo "Which source? make quarantine SOURCE=card_payments"; exit 1; }
	@CT_HOME="$(STATE)" $(BIN)/python -m training.quarantine $(SOURCE) $(FEED)

.PHONY: bench-ingest
bench-ingest: $(READY) ## Benchmark ingest: CPU time and peak memory by the size of the file (ARGS='1819688 90000000')
	@$(BIN)/python -m benchmarks.ingest $(ARGS)

.PHONY: bench-small-files
bench-small-files: $(READY) ## Benchmark reads of a month of predictions, before and after their files are merged
	@$(BIN)/python -m benchmarks.small_files $(ARGS)

.PHONY: bench-features
bench-features: $(READY) ## Benchmark the SQL of declared aggregations against the same tables written by hand
	@$(BIN)/python -m benchmarks.feature_sql $(ARGS)

.PHONY: bench-spark
bench-spark: $(READY) ## Benchmark features and join on Spark and on DuckDB (needs Java; EXTRAS=spark make setup; ARGS='--millions 2 8')
	@$(BIN)/python -m benchmarks.spark $(ARGS)

.PHONY: bench-idle
bench-idle: $(READY) ## Benchmark the CPU that the idle stack uses (on a quiet machine)
	@$(BIN)/python -m benchmarks.idle $(ARGS)

.PHONY: bench-imports
bench-imports: $(READY) ## Benchmark the time of a step's process before the step begins
	@$(BIN)/python -m benchmarks.imports $(ARGS)

.PHONY: bench-train
bench-train: $(READY) ## Benchmark the fit of the MLP against a plain PyTorch loop (ARGS='--rows 1000000')
	@$(BIN)/python -m benchmarks.train $(ARGS)

.PHONY: bench-serving
bench-serving: $(READY) ## Benchmark the prediction service against others (needs wrk and redis-server)
	@$(BIN)/python -m benchmarks.serving $(ARGS)

.PHONY: bench-models
bench-models: $(READY) ## Benchmark one service with 1, 10 and 50 models (needs wrk and redis-server)
	@$(BIN)/python -m benchmarks.models $(ARGS)

.PHONY: bench-generator
bench-generator: $(READY) ## Benchmark the generator, in rows per second
	@$(BIN)/python -m benchmarks.generator_speed $(ARGS)

.PHONY: bench-monitoring
bench-monitoring: $(READY) ## Benchmark what monitoring finds of planted changes, and its false alarms (ARGS='--seeds 2 --label-customers 0')
	@$(BIN)/python -m benchmarks.monitoring $(ARGS)

.PHONY: bench-drift
bench-drift: $(READY) ## Benchmark a look for drift at a million rows (ARGS='--evidently')
	@$(BIN)/python -m benchmarks.drift $(ARGS)

.PHONY: bench-backtest
bench-backtest: $(DEV_READY) ## Benchmark a backtest of six months with 26 trainings of a boosted tree (ARGS='--weeks 8')
	@$(BIN)/python -m benchmarks.backtest $(ARGS)

.PHONY: bench-slices
bench-slices: $(READY) ## Measure how often the gate of slices refuses equally good challengers, and how often worse ones
	@$(BIN)/python -m benchmarks.slices $(ARGS)

.PHONY: bench-score
bench-score: $(READY) ## Benchmark scoring in batch, beyond reading features (ARGS='--rows 10000000')
	@$(BIN)/python -m benchmarks.score $(ARGS)

.PHONY: bench-soak
bench-soak: $(READY) ## Send 200,000 requests while versions swap and parts fail (ARGS='--requests 10000 --swaps 5')
	@$(BIN)/python -m benchmarks.soak $(ARGS)
