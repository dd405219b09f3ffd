# The same verbs on a laptop and in CI. PYTHON picks the interpreter that makes the virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# constraints also hold inside pip's build environments; deepspeed builds its kernels at run time
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export DS_BUILD_OPS := 0

.DEFAULT_GOAL := help
.PHONY: help setup check test quickstart bench ui clean

help: ## list the verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rightcall needs Python 3.11 or newer: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[train,flow,dev]'
	touch $@

setup: $(STAMP) ## make the virtual environment

check: $(STAMP) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP) ## the whole test suite
	$(BIN)/python -m pytest

quickstart: $(STAMP) ## the whole pipeline on the embedded default
	$(BIN)/python -m flows.pipeline recipes/quickstart.yaml

bench: $(STAMP) ## ratios, each measured in one run (bench/README.md)
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/ingestion.py

ui: $(STAMP) ## Prefect and MLflow on what the runs left
	$(BIN)/python -m flows.ui

clean: ## remove the environment and what the runs left
	rm -rf $(VENV) .rightcall .mypy_cache .ruff_cache .pytest_cache
