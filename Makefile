# `make run` trains the main job; `make test` runs every test. Both build .venv first.
# With another interpreter, beside .venv: make test PYTHON=python3.10 VENV=.venv-3.10
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test deployment fuzz lint browser wheel arm
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

# docs/deploy.md to the letter, on hosts of their own: network namespaces, which need root. Prints a transcript.
deployment: $(VENV)/ready
	SHEAF_DEPLOYMENT=1 $(BIN)/python -m pytest tests/end_to_end/test_deployment.py -q -s

# Files, settings and messages with random errors: each kind for a minute, in a process of its own.
fuzz: $(VENV)/ready
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds 60

# Reports are tested in a real browser. Where none can be installed, that test says so and is skipped.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium chromium-driver; \
	  } >/dev/null 2>&1; } || true

# The distribution, to install on other machines: dist/sheaf_edge-VERSION-py3-none-any.whl
wheel: $(VENV)/ready
	rm -f dist/sheaf_edge-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Devices on aarch64: all dependencies have wheels, and a fleet of emulated devices trains as this machine does.
# Needs Debian's qemu-user-static and debootstrap, 2 GB of disk, and half an hour. Not part of `make test`.
arm: wheel
	$(BIN)/python -m pip install --quiet uv
	PATH="$(abspath $(BIN)):$$PATH" tools/arm/resolve.sh
	PATH="$(abspath $(BIN)):$$PATH" tools/arm/prepare.sh .arm dist/sheaf_edge-*.whl
	$(BIN)/python tools/arm/emulate.py .arm

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
