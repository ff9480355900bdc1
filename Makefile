# Everything a checkout needs, from python3 (>= 3.11) and make alone.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MEMBERS := shared/stellwerk shared/stellwerk-kit services/gateway services/dataset \
  services/environment-build services/scheduler services/gpu-executor services/history \
  services/model-registry training/agent deploy/embedded
SETUP_INPUTS := constraints.txt pyproject.toml $(MEMBERS:%=%/pyproject.toml)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo up down check test constraints clean

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

constraints: ## pin every dependency anew, host-free
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	  --no-emit-index-url --no-header --no-annotate $(MEMBERS:%=--no-emit-package $(notdir %)) \
	  --no-emit-package stellwerk --no-emit-package stellwerk-gateway --no-emit-package stellwerk-dataset \
	  --no-emit-package stellwerk-environment-build --no-emit-package stellwerk-scheduler \
	  --no-emit-package stellwerk-gpu-executor --no-emit-package stellwerk-history \
	  --no-emit-package stellwerk-model-registry --no-emit-package stellwerk-agent \
	  --no-emit-package stellwerk-embedded --group dev $(MEMBERS:%=%/pyproject.toml) -o constraints.txt

clean: ## remove the virtual environment and tool caches, never data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
