# make run          execute the walkthrough; notebooks, HTML and figures land in out/
# make test         lint, types, every test
# make lab          open JupyterLab on the first notebook
# make update       execute the walkthrough, then renew notebooks/ and figures/; ARGS="--only 05" for one of them
# make newest       the same as test, with the newest of every package, in .venv-newest
# make constraints  write what .venv has to constraints.txt; with VENV=.venv-newest, what newest tried
#
# The environment is made once, in .venv, and again only when pyproject.toml or constraints.txt changes.
# Another interpreter: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
CONSTRAINTS := --constraint constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test lint lab update newest constraints clean

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

update: $(READY)
	rm -rf out/update
	@$(BIN)/radapter-lite run --out out/update $(ARGS)
	for folder in notebooks figures; do ! test -d out/update/$$folder || cp -R out/update/$$folder . || exit 1; done

newest: NEWEST := VENV=.venv-newest CONSTRAINTS=
newest:
	rm -rf .venv-newest
	@$(MAKE) .venv-newest/.ready $(NEWEST)
	@echo "What is newer than in constraints.txt:"
	@.ci/versions .venv-newest/bin/python | diff constraints.txt - || true
	@$(MAKE) test $(NEWEST)

constraints: $(READY)
	.ci/versions $(BIN)/python > $@.new && mv $@.new $@.txt

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -print0 | xargs -0 rm -rf

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "radapter-lite needs Python 3.10 or newer as $(PYTHON); name another: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing radapter-lite and its dependencies into $(VENV), once. PyTorch is large: this takes minutes."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(CONSTRAINTS) --editable ".[dev]"
	@touch $@
