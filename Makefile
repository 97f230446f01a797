# Every command does its own set-up (scripts/setup.sh) and ends by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test otlp check wheel conformance bench table fixtures clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a Django project's tasks in Rust and in Python, then throughput beside a stock worker; on servers: BROKER=redis, BROKER=amqp
	@scripts/setup.sh compiler python $(if $(filter redis amqp,$(BROKER)),redis) $(if $(filter amqp,$(BROKER)),rabbitmq)
	@.build/venv/bin/python scripts/demo.py $(BROKER)

test: ## all tests: Rust, documentation, and stock Celery against the worker
	@scripts/test.sh

otlp: ## the tests of the feature otlp, for which everything is compiled anew
	@cargo test --locked --features otlp --test otlp

check: ## format, lints, documentation, licences and the rules of the house
	@scripts/check.sh

wheel: ## the Python package with its extension, for CPython 3.9 and newer on machines like this one
	@scripts/setup.sh compiler python
	@.build/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/celeriac-*.whl

conformance: ## Celery's integration tests against this worker and the stock one: CELERY=5.5.3 BROKER=amqp BACKEND=db+sqlite ONLY=test_tasks.py K=chord
	@scripts/setup.sh compiler redis python $(if $(filter amqp,$(BROKER)),rabbitmq)
	@scripts/extension.sh
	@.build/venv/bin/python scripts/conformance/run.py $(if $(CELERY),--celery $(CELERY)) $(if $(BROKER),--broker $(BROKER)) \
		$(if $(BACKEND),--backend $(BACKEND)) $(if $(ONLY),--only $(ONLY)) $(if $(K),-k "$(K)") $(if $(WORKER),--worker $(WORKER))

bench: ## throughput, latency and memory beside stock Celery, the crate `celery`, dramatiq, taskiq, arq and rq
	@scripts/setup.sh compiler redis rabbitmq python peers
	@.build/venv/bin/python benches/run.py $(BENCH)

table: ## write README's table of features anew from tests/features.toml
	@UPDATE_SNAPSHOTS=1 cargo test --locked --quiet --test tidy readme_has_the_table_of_features

fixtures: ## record the golden messages again from real Celery versions
	@scripts/setup.sh redis rabbitmq python
	@.build/venv/bin/python scripts/fixtures/record.py
	@.build/venv/bin/python scripts/fixtures/amqp_record.py
	@.build/venv/bin/python scripts/fixtures/canvas.py

clean: ## remove what the commands made, except Cargo's target directory
	rm -rf .build
