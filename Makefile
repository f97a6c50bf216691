# `make run` trains the main job; `make test` runs every test. Both build .venv first.
# With another interpreter, beside .venv: make test PYTHON=python3.10 VENV=.venv-3.10
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test fuzz lint browser
.DEFAULT_GOAL := run

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info[:2] <= (3, 13) else "sheaf needs Python 3.10 to 3.13; name one: make run PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

run: $(VENV)/ready
	$(BIN)/sheaf run

# Three processes for two cores, as fleets and browsers often idle; byte code is cached for the many processes.
test: $(VENV)/ready browser
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 3 --dist worksteal

# Files, settings and messages with random errors: each kind for a minute, in a process of its own.
fuzz: $(VENV)/ready
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds 60

# Reports are tested in a real browser. Where none can be installed, that test says so and is skipped.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium chromium-driver; \
	  } >/dev/null 2>&1; } || true

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
