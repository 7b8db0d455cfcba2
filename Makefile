# Everything here needs only make, a Python (3.11 or later) with venv, and the package index.

PYTHON ?= $(shell command -v python3.11 >/dev/null 2>&1 && python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# It is made anew only when the dependencies may have changed.
STAMP := $(VENV)/installed
# The rooms on which the promises rest are covered to this percentage of lines and branches. Only what runs in the
# tests' own processes counts: a daemon that a test starts and kills is not measured.
ROOMS := aglowd.store aglowd.effects aglowd.pipeline aglowd.pipeline_file aglowd.reactor
COVERAGE := 95
WORKERS ?= 3

.PHONY: venv demo test check static fmt bench clean

venv: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/aglowd demo

static: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

check: static
	$(BIN)/pytest -q -n $(WORKERS) -m "not world"

# Random order and warnings as errors are set in setup.cfg. pytest comes last, so that its own last line is the last one.
test: static
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal $(ROOMS:%=--cov=%) --cov-branch --cov-report=term --cov-fail-under=$(COVERAGE)

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.*
