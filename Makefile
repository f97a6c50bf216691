# `make run` trains the main job; `make test` proves the whole. Both build .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint
.DEFAULT_GOAL := run

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "sheaf needs Python 3.11 to 3.13; name one: make run PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

run: .venv/ready
	$(BIN)/sheaf run

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
