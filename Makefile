# Everything a checkout needs, from python3 (>= 3.11) and make alone.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MEMBERS := shared/stellwerk shared/stellwerk-kit services/gateway services/dataset \
  services/environment-build services/scheduler services/gpu-executor services/history \
  services/model-registry services/keyvault training/agent training/azureml-compat deploy/embedded
SETUP_INPUTS := constraints.txt pyproject.toml $(MEMBERS:%=%/pyproject.toml)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo up down check test test-postgresql test-docker test-gpu e2e chaos bench bench-peers generate constraints curated clean
export STELLWERK_HOME ?= $(CURDIR)/.stellwerk

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## virtual environment with every service, editable

$(VENV)/.ready: $(SETUP_INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Stellwerk needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -c constraints.txt \
	  --group dev $(MEMBERS:%=-e %)
	@touch $@

demo: setup ## train Keras on MNIST through every service; STELLWERK_URL=... names another platform
	@if test -n "$$STELLWERK_URL"; then \
	  export STELLWERK_TOKEN="$${STELLWERK_TOKEN:-$$(deploy/docker/token)}"; \
	else $(BIN)/stellwerk status > /dev/null 2>&1 || $(BIN)/stellwerk up; fi; \
	$(BIN)/python training/examples/keras-mnist/submit.py

up: setup ## start the embedded stack in .stellwerk/
	@$(BIN)/stellwerk up

down: setup ## stop it
	@$(BIN)/stellwerk down

check: setup ## format, lint, types, generated pages, fast tests
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy $(MEMBERS:%=%/src)
	@$(BIN)/pytest -q -n 2 -m "not slow and not servers" shared services training deploy tests/test_architecture.py

test: setup ## every test: real broker, real object store, real Keras
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy $(MEMBERS:%=%/src)
	@deploy/host-packages
	@$(BIN)/pytest -q --durations=15

test-postgresql: setup ## the services' tests on stores in PostgreSQL (a server of Debian's package)
	@deploy/host-packages postgresql
	@STELLWERK_TEST_DATABASE=postgresql STELLWERK_TEST_HOST=complete $(BIN)/pytest -q -n 2 shared/stellwerk-kit services

test-docker: setup $(VENV)/.docker-ready ## what needs a Docker engine; starts one if none answers
	@deploy/host-packages docker
	@$(BIN)/pytest -q --timeout 1200 --durations=10 tests/docker

test-gpu: setup ## what needs an NVIDIA GPU; STELLWERK_GPU_PYTHON=... is a Python with torch, jax or tensorflow for it
	@deploy/host-packages
	@STELLWERK_TEST_HOST=complete $(BIN)/pytest -q --timeout 600 tests/device

$(VENV)/.docker-ready: $(VENV)/.ready
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt --group docker
	@touch $@

e2e: setup ## the whole platform as processes
	@$(BIN)/pytest -q tests/e2e

chaos: setup ## kill every part at every phase of a run, with a seed
	@STELLWERK_CHAOS=full $(BIN)/pytest -q --timeout 1800 tests/chaos

bench: setup ## figures as ratios, JSON lines in bench-results/
	@$(BIN)/python tests/bench/run.py

bench-peers: setup ## the same beside MLflow Projects, Ray Jobs and Ray Tune, installed in .bench-peers/
	@$(BIN)/python tests/bench/peers.py

generate: setup ## docs pages that come from the code
	@$(BIN)/python docs/generate.py

curated: setup ## resolve the curated environments anew
	@$(BIN)/python docs/lock_curated.py

constraints: ## pin every dependency anew, host-free
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	  --no-emit-index-url --no-header --no-annotate \
	  --no-emit-package stellwerk --no-emit-package stellwerk-gateway --no-emit-package stellwerk-dataset \
	  --no-emit-package stellwerk-environment-build --no-emit-package stellwerk-scheduler \
	  --no-emit-package stellwerk-gpu-executor --no-emit-package stellwerk-history \
	  --no-emit-package stellwerk-model-registry --no-emit-package stellwerk-keyvault --no-emit-package stellwerk-agent \
	  --no-emit-package stellwerk-azureml --no-emit-package stellwerk-embedded --group dev --group docker $(MEMBERS:%=%/pyproject.toml) -o constraints.txt

clean: ## remove the virtual environment and tool caches, never data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
