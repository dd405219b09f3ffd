# The same verbs on a laptop and in CI. PYTHON picks the interpreter that makes the virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# constraints also hold inside pip's build environments; deepspeed builds its kernels at run time
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export DS_BUILD_OPS := 0

.DEFAULT_GOAL := help
.PHONY: help setup check test quickstart quickstart-sagemaker bench ui image image-test clean

help: ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rightcall needs Python 3.11 or newer: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[train,gpu,image,flow,aws,dev]'
	touch $@

setup: $(STAMP) ## make the virtual environment

check: $(STAMP) ## lint, format and types, the Dockerfile too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint training_image/Dockerfile

test: $(STAMP) ## the whole test suite
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

quickstart: $(STAMP) ## the whole pipeline on the embedded default
	$(BIN)/python -m flows.pipeline recipes/quickstart.yaml

quickstart-sagemaker: $(STAMP) ## the same as SageMaker jobs: an emulated service runs them here, no account is needed
	PYTHONPATH=tests:tests/support/services $(BIN)/python -m sagemaker_service.quickstart

bench: $(STAMP) ## ratios, each measured in one run (bench/README.md)
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/ingestion.py

ui: $(STAMP) ## Prefect and MLflow on what the runs left
	$(BIN)/python -m tasks.operations.ui

# IMAGE=<registry>/<name>:<tag> is pushed; BASE_IMAGE, FLASH_ATTENTION, RUN_AS and PIP_CONF are optional (docs/sagemaker.md)
image: $(STAMP) ## build the training image with docker or buildah, and push it
	$(BIN)/python -m tasks.machine.image $(IMAGE) $(if $(BASE_IMAGE),--base $(BASE_IMAGE)) $(if $(RUN_AS),--run-as $(RUN_AS)) \
		$(if $(FLASH_ATTENTION),--flash-attention $(FLASH_ATTENTION)) $(if $(PIP_CONF),--pip-conf $(PIP_CONF))

image-test: $(STAMP) ## build the image on a Debian made here and train in it (root, buildah, mmdebstrap; 10 minutes to an hour)
	RIGHTCALL_IMAGE_TEST=1 $(BIN)/python -m pytest tests/house/test_image.py

clean: ## remove the environment and what the runs left
	rm -rf $(VENV) .rightcall .mypy_cache .ruff_cache .pytest_cache
