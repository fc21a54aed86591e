# Needs Python 3.12 or newer with pip and venv, and make. Everything else comes from the two lock
# files, by hash, into .venv; only tools from there are used.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What `make run` stores and reads back; the checkout itself by default.
FILES ?= .
# Further arguments for pytest: make test ARGS='-k digest'
ARGS ?=
# Test processes side by side: most tests wait for servers more than they compute. A file's tests
# stay together, for they share a server.
JOBS ?= 4
# How many examples property tests try: quick or thorough, see tests/examples.py.
PROFILE := quick
# The tree of `make bench-snapshot`; how many workers `make kill-snapshots` kills, and how many
# faults `make faults` makes, when and which; how often `make owners` troubles each owner,
# and how many blobs it is to put in the meantime; how often `make names` troubles workers.
TREE ?= /usr/share
KILLS ?= 50
FAULTS ?= 20
OWNERS ?= 50
BLOBS ?= 0
ROUNDS ?= 500
OPS ?= 20000
SEED ?= 1
# How many times as many examples of properties and models `make check` and `make test-long` try.
export LENGTH ?= 1
# How many seconds `make kill-collector` lasts.
LASTS ?= 300
# Some kinds alone, by name, with | between them.
KINDS ?=

# The first of these that runs and is new enough. They are run, not only looked for: a shim of
# pyenv may be there without the version behind it.
PYTHONS := python3.13 python3.12 python3 python3.14 /usr/bin/python3
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))

# Whatever the machine prefers: the tests start hundreds of processes, and each would compile every
# module again.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.12 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate

.PHONY: help setup run test test-long test-nats e2e check fmt lint types schemas schemas-check bench \
  bench-snapshot kill-snapshots kill-collector stops faults faults-majority owners names states subsets \
  http-fuzz compiled lock clean

help:
	@echo 'make run [FILES=…]  a server, two workers, real files stored and read back'
	@echo 'make test           set up, and run every test that takes seconds'
	@echo 'make check          what CI runs: lint, types, schema drift, long tests, make test'
	@echo 'make e2e            docker compose up, tried for real; needs a Docker engine with Compose'
	@echo 'make faults         three servers, three workers, FAULTS=20 faults drawn by SEED=1'
	@echo 'also: setup test-nats test-long fmt lint types schemas bench bench-snapshot kill-snapshots'
	@echo '      kill-collector stops faults-majority owners names states subsets http-fuzz lock clean'

setup: $(INSTALLED)

# Build back ends come first and are locked too: pip would fetch them without a hash (nkeys, which
# nats-py wants, has no wheel, and this project is installed editable).
$(INSTALLED): requirements-build.lock requirements.lock pyproject.toml
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	  rm -rf $(VENV); \
	  for python in $(PYTHON) $(PYTHONS); do \
	    if $$python -c '$(SUITABLE)' 2>/dev/null; then \
	      echo "Creating $(VENV) with $$($$python --version)"; \
	      $$python -m venv $(VENV); break; \
	    fi; \
	  done; \
	  if ! [ -x $(BIN)/python ]; then \
	    echo 'No Python 3.12 or newer with venv was found; name one: make PYTHON=/path/to/python' >&2; \
	    exit 1; \
	  fi; \
	fi
	@echo 'Installing requirements.lock'
	@$(PIP_INSTALL) --require-hashes -r requirements-build.lock
	@$(PIP_INSTALL) --require-hashes --no-build-isolation -r requirements.lock
	@$(PIP_INSTALL) --no-index --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	@$(BIN)/holdfast up --demo $(FILES)

# Everything but what only repeats at length: `make test-long`, and most examples of the property
# tests: PROFILE=thorough tries up to four times as many, see tests/README.md. With COVERAGE=1, as
# `make check` runs it, what the long tests covered counts too, and the floor that pyproject.toml sets
# holds.
test: setup tests/js/node_modules
	$(PYTEST) -m 'not long' --hypothesis-profile=$(PROFILE) \
	  $(if $(COVERAGE),--cov --cov-append --cov-report=term) $(ARGS)

# Kills, faults, more clusters of three, every variant of what takes seconds: minutes.
test-long: JOBS = 3
test-long: setup tests/js/node_modules
	$(PYTEST) -m long \
	  $(if $(COVERAGE),--cov --cov-report= --cov-fail-under=0) $(ARGS)

test-nats: setup
	$(PYTEST) -m 'nats and not long' $(ARGS)

# The official JavaScript client, for the tests that speak as it does; skipped where npm is missing.
tests/js/node_modules: tests/js/package.json
	@if command -v npm >/dev/null; then \
	  npm install --prefix tests/js --no-audit --no-fund --no-package-lock --loglevel=error && \
	  touch $@; \
	fi

# The stack of docker-compose.yml, under a name and on a port of its own, some of it killed. Elsewhere
# these tests are skipped, with or without Docker: they build an image and take minutes.
e2e: setup
	HOLDFAST_E2E=1 $(BIN)/pytest -s -o faulthandler_timeout=0 tests/e2e $(ARGS)

# The types are checked on one core; meanwhile the others do the rest, and load the tests once, which
# leaves them compiled for each test process.
check: setup
	@$(MAKE) --no-print-directory -j 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) \
	  types lint schemas-check tests/js/node_modules compiled
	@$(MAKE) --no-print-directory test-long COVERAGE=1
	@$(MAKE) --no-print-directory test COVERAGE=1 PROFILE=thorough

fmt: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

schemas: setup
	$(BIN)/python -m tests.docs.schemas schemas

schemas-check: setup
	$(BIN)/python -m tests.docs.schemas --check schemas

compiled: setup
	@$(BIN)/pytest --collect-only -qq >/dev/null || true  # the tests will say why

# Beside nats-py, natsrpy, natsio; ARGS="--node-modules DIR" for nats.js too.
bench: setup
	$(BIN)/python -m tests.bench blob $(ARGS)

# Beside restic, borg and tar, where they are installed.
bench-snapshot: setup
	$(BIN)/python -m tests.bench snapshot $(TREE) $(ARGS)

# Workers killed at KILLS moments drawn by SEED, while they archive and restore.
kill-snapshots: setup
	KILLS=$(KILLS) SEED=$(SEED) $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/e2e_snapshots/test_kills.py $(ARGS)

# Workers paused and killed beside collectors with a grace time of a second, for LASTS seconds.
kill-collector: setup
	LASTS=$(LASTS) SEED=$(SEED) $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/e2e_snapshots/test_kill_collector.py $(ARGS)

# Workers told to stop in STOPS rounds at moments drawn by SEED, on one server and on three.
stops: setup
	STOPS=$${STOPS:-50} SEED=$(SEED) $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/e2e_snapshots/test_stops.py $(ARGS)

# Three servers and three workers under load, with FAULTS faults drawn by SEED.
faults: setup
	FAULTS=$(FAULTS) SEED=$(SEED) KINDS='$(KINDS)' $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/cluster/test_faults.py $(ARGS)

# Two of the three killed at once for 20 s, with a gigabyte stored and 2,000 writes a second.
faults-majority: setup
	STORED_MB=$${STORED_MB:-1100} WRITES_PER_SECOND=$${WRITES_PER_SECOND:-2000} GONE_SECONDS=20 \
	  $(BIN)/pytest -s -o faulthandler_timeout=0 tests/cluster/test_majority.py $(ARGS)

# Owners of uploads paused, cut off and killed at OWNERS moments each drawn by SEED, on one server and
# on three.
owners: setup
	OWNERS=$(OWNERS) BLOBS=$(BLOBS) SEED=$(SEED) $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/cluster/test_owners.py $(ARGS)

# Workers paused, cut off and killed at ROUNDS moments drawn by SEED, on one server and on three, while
# names are written; 64 creates at once CREATES times; the server killed KILLS times after 1,000 names,
# as many blobs and SNAPSHOTS snapshots were deleted.
names: setup
	ROUNDS=$(ROUNDS) CREATES=$${CREATES:-200} KILLS=$${KILLS:-10} SNAPSHOTS=$${SNAPSHOTS:-100} SEED=$(SEED) \
	  $(BIN)/pytest -s -o faulthandler_timeout=0 tests/cluster/test_names.py $(ARGS)

# Requests made up from the OpenAPI document of the gateway, for LASTS seconds.
http-fuzz: LASTS = 600
http-fuzz: setup
	SECONDS_OF_FUZZING=$(LASTS) $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/gateway/test_openapi.py $(ARGS)

# States on three servers, with OPS calls of eight clients, servers and workers in trouble by SEED.
states: setup
	OPS=$(OPS) SEED=$(SEED) $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/cluster/test_states.py $(ARGS)

# The store of logs on a disk, cut off after each step, with SUBSETS of the unsynced writes left of
# each: all of them, where there are fewer.
subsets: setup
	SUBSETS=$${SUBSETS:-1024} $(BIN)/pytest -s -o faulthandler_timeout=0 \
	  tests/stores/test_disk_journal_crash.py -k unsynced $(ARGS)

# Needs uv. All files together, for they must agree. That in deploy/ is what the image installs.
lock:
	$(UV_COMPILE) --extra embedded --extra gateway --extra otel --group dev pyproject.toml -o requirements.lock
	printf '%s\n' 'setuptools>=68' 'hatchling>=1.27' editables | \
	  $(UV_COMPILE) --constraint requirements.lock - -o requirements-build.lock
	$(UV_COMPILE) --constraint requirements.lock --extra gateway pyproject.toml -o deploy/requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.*
