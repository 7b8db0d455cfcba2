# Everything here needs only make, a Python (3.11 or later) with venv, and the package index.

PYTHON ?= $(shell command -v python3.11 >/dev/null 2>&1 && python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# It is made anew only when the dependencies may have changed.
STAMP := $(VENV)/installed
DOCS_STAMP := $(VENV)/installed-docs
# The rooms on which the promises rest are covered to this percentage of lines and branches. Only what runs in the
# tests' own processes counts: a daemon that a test starts and kills is not measured.
ROOMS := aglowd.store aglowd.effects aglowd.pipeline aglowd.pipeline_file aglowd.reactor
COVERAGE := 95
WORKERS ?= 4
# Among thousands of tests that wait for real servers and processes, a busy machine delays one now and then: CI tries a test that
# failed once more, and names it. Whoever sees one named that way finds out why; nobody else gets a second try.
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist worksteal $(if $(CI),--reruns 1 -rR)
# Each worker and each daemon that a test starts would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

# Where `make install` puts things; packages put them below DESTDIR first.
PREFIX ?= /usr/local
DESTDIR ?=
# A package is for the Python of the system on which it is made, whatever else is first on the PATH.
SYSTEM_PYTHON ?= /usr/bin/python3

.PHONY: install uninstall deb rpm
.PHONY: venv demo docs screens test check static fmt mutants bench bench-check bench-record clean crash crash-rest crash-pairs soak chaos test-long test-real test-packages

venv: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

demo: $(STAMP)
	$(BIN)/aglowd demo

# The pages of docs/ as a site, build/docs/index.html. Whatever Sphinx warns of is an error: a link that leads nowhere is a defect.
# -E reads all of them each time, so that no warning is lost because its page has not changed.
docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build -q -E -W --keep-going -n -d build/docs-read -b html docs build/docs
	@echo "build/docs/index.html"

# What the pages show of commands, made anew by running them; SCREENS: some of the stories of tests/screens.
screens: $(STAMP)
	$(BIN)/python -m tests.screens $(SCREENS)

static: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

check: static
	$(PYTEST) -m "not world"

# A third of the crash points, another one each day; .ci/run passes all of them. Then all tests but those of the rooms that
# are measured, which come last: coverage makes every line slower.
MEASURED := tests/effects tests/handlers tests/model tests/reactor tests/store tests/test_pipeline.py tests/test_poison.py \
	tests/test_take_over.py tests/test_field_orders.py tests/test_teller.py tests/test_replay.py tests/test_two_daemons.py tests/test_upkeep.py tests/watchers/test_records.py
test: static
	$(BIN)/python -m tests.crash --third $(if $(DAY),--day $(DAY))
	$(PYTEST) -m "not long" $(MEASURED:%=--ignore=%)
	$(PYTEST) $(MEASURED) \
		$(ROOMS:%=--cov=%) --cov-branch --cov-report=term --cov-fail-under=$(COVERAGE)

# Worlds that show in another seed or by another way what one in `make test` shows already. DAY=2026-03-01: that day's third alone.
test-long: $(DOCS_STAMP)
	$(PYTEST) -m long tests $(if $(DAY),--third $(DAY))

# The contracts with real servers (GridFTP and the gfal tools, Apache, WsgiDAV; a CouchDB from npm; Slurm; ARC), which are
# installed if need be, started and stopped. As root, or with everything installed already.
test-real: $(STAMP)
	tests/real/install.sh $(BIN)/python
	$(PYTEST) tests/real --ignore=$(PACKAGES)

# The packages are made, and installed, started and removed in a system of their own. As root; half a minute and more.
PACKAGES := tests/real/test_packages.py
test-packages: $(STAMP)
	$(BIN)/pytest -q $(PACKAGES)

# Simulated days in virtual time: worlds with crashes, faults and jumping clocks, two at a time.
SEEDS ?= 1000
FIRST ?= 0
soak: $(STAMP)
	$(BIN)/python -m tests.virtual --seeds $(SEEDS) --first $(FIRST)

# Every crash point alone, and every one as the second kill, during recovery.
crash: $(STAMP)
	$(BIN)/python -m tests.crash

# What `make test` leaves of it: the day's third as the second kill, then the others alone. MINUTES=3 begins none of these after that.
crash-rest: $(STAMP)
	$(BIN)/python -m tests.crash --rest $(if $(DAY),--day $(DAY)) $(if $(MINUTES),--minutes $(MINUTES))

# All pairs: hours. SHARD=1/4 plays a quarter of them.
crash-pairs: $(STAMP)
	$(BIN)/python -m tests.crash --pairs $(if $(SHARD),--shard $(SHARD))

# The demo in a world of faults, the daemon killed on the way; two at a time, each SEED:STAGING:STORAGE:JOBS.
CHAOS ?= 1:legacy:gfal:glite 2:stageit:webdav:dirac 3:dcache:gfal:arc 4:legacy:gfal:local
chaos: $(STAMP)
	printf '%s\n' $(CHAOS) | tr : ' ' | \
		xargs -n 4 -P 2 sh -c '$(BIN)/aglowd demo --chaos $$0 --staging $$1 --storage $$2 --jobs $$3'

# Of the system, as root: an environment of its own, commands, units, a configuration if there is none.
install:
	packaging/install.sh $(SYSTEM_PYTHON) $(PREFIX) $(DESTDIR)

# Configuration and state stay.
uninstall:
	packaging/uninstall.sh $(PREFIX) $(DESTDIR)

deb:
	packaging/deb.sh $(SYSTEM_PYTHON)

rpm:
	packaging/rpm.sh $(SYSTEM_PYTHON)

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The product is broken on purpose, one way at a time, in a copy; some test must notice. MUTANTS: parts of their names.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(MUTANTS)

bench: $(STAMP)
	$(BIN)/python -m bench

# Whether small fixed workloads still take what bench/expected.json says: requests, statements, commits, calls, instructions.
bench-check: $(STAMP)
	$(BIN)/python -m bench.check

bench-record: $(STAMP)
	$(BIN)/python -m bench.check --record

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.*
