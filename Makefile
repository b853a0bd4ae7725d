# make run    execute the walkthrough; notebooks, HTML and figures land in out/
# make test   lint, types, every test
# make lab    open JupyterLab on the first notebook
#
# The environment is made once, in .venv, and again only when pyproject.toml changes.
# Another interpreter: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test lint lab clean

help:
	@sed -n 's/^# //p' Makefile

run: $(READY)
	@$(BIN)/radapter-lite run $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(READY)
	@$(BIN)/radapter-lite lab $(ARGS)

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -print0 | xargs -0 rm -rf

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "radapter-lite needs Python 3.10 or newer as $(PYTHON); name another: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing radapter-lite and its dependencies into $(VENV), once. PyTorch is large: this takes minutes."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable ".[dev]"
	@touch $@
