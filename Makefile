# `make up` and `make test` need Python 3.11 or later, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

UV := UV_SYSTEM_CERTS=1 $(BIN)/uv --quiet pip
INSTALLER := infra/local/installer.lock

RESOLVE := $(UV) compile --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url

comma := ,
# Without compiled files, each of the hundreds of processes of a test run would compile all its modules.
unexport PYTHONDONTWRITEBYTECODE

PARTS := $(sort $(patsubst tests/%/,%,$(dir $(wildcard tests/*/test_*.py))))
CHOSEN := $(subst $(comma), ,$(ONLY))
WITHOUT_SERVERS := compose unit
# Each process has its own servers: 2 GB of memory, and up to 2 GB more where data is in memory. Tests wait for part of
# their time, so two cores run three processes.
PROCESSES ?= 3
PYTEST := $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder \
	--durations=15 --durations-min=5

LAST_RUN := .pytest_cache/v

.PHONY: up check test again cluster clients bench lint lock
.SILENT:

up: $(INSTALLED)
	exec $(BIN)/consumers up

# Everything that needs no servers: style, types, import contracts and unit tests, in less than a minute.
check: lint
	exec $(PYTEST) $(WITHOUT_SERVERS:%=tests/%)

# All tests. ONLY=api,indexer for some parts, which are the folders of tests/. PROCESSES=1 for one set of servers.
# A single file needs no make: .venv/bin/python -m pytest tests/api/test_orders.py
test: $(INSTALLED)
	$(foreach part,$(filter-out $(PARTS),$(CHOSEN)),$(error ONLY=$(part): no such part; the parts are $(PARTS)))
	exec $(PYTEST) $(CHOSEN:%=tests/%)

# Failed tests that have not passed since, without other tests beside them, if they are at most three, and if the last run
# was complete: its status is 1 then.
again: $(INSTALLED)
	test "$$(cat $(LAST_RUN)/run/status)" = 1
	$(BIN)/python -c 'import json, sys; sys.exit(len(json.load(open("$(LAST_RUN)/cache/lastfailed"))) > 3)'
	exec $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

# Tests with several servers of a kind, each for minutes: `make test` leaves them out.
cluster: $(INSTALLED)
	exec $(BIN)/python -m pytest -m cluster --numprocesses 2 --dist loadfile --durations=15 tests/cluster

# Clients generated from the OpenAPI document, built and run: needs the package registries, and node, npm and go. A test
# without its tools is skipped, and says so.
clients: $(INSTALLED)
	exec $(BIN)/python -m pytest -m clients tests/clients

# SIZE=1000000 for more consumers, ONLY=reads,writes for some parts, CASES=deep for some cases of reads.
bench: $(INSTALLED)
	exec $(BIN)/python -m tests.bench

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Resolve the dependencies anew, for every platform, without a word about where they come from.
lock: $(INSTALLED)
	echo uv | $(RESOLVE) - --upgrade --output-file $(INSTALLER)
	$(RESOLVE) pyproject.toml --extra aws --extra local --group dev --upgrade --output-file requirements.lock
	$(RESOLVE) pyproject.toml --extra aws --constraint requirements.lock --output-file infra/docker/service.lock
	echo hatchling | $(RESOLVE) - --constraint requirements.lock --output-file infra/docker/build.lock

$(INSTALLED): requirements.lock $(INSTALLER) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or later is needed: install one, and name it, such as `make PYTHON=python3.12 up`' >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'Python lacks its module venv: install it (Debian, Ubuntu: the package python3-venv)' >&2; exit 1; }
	echo 'Installing what requirements.lock names into .venv …'
	# After an interrupted installation, packages may be there in part.
	clear=--clear; test ! -e $@ || clear=; rm -f $@; $(PYTHON) -m venv $$clear .venv
	# uv takes a sixth of pip's time. pip installs where uv does not run, or does not reach the packages; and where pip has
	# settings that uv does not read. The address of an index may hold a password, so it is no argument.
	trap 'exit 130' INT; \
	index=$${PIP_INDEX_URL:-$$($(PIP) config get global.index-url 2>/dev/null || \
		$(PIP) config get install.index-url 2>/dev/null)}; \
	test -z "$$index" || export UV_DEFAULT_INDEX="$$index"; \
	{ ! $(PIP) config list | grep -Eq '[.](no-index|extra-index-url|proxy|client-cert)=' && \
		$(PIP) install --require-hashes --requirement $(INSTALLER) && \
		$(UV) install --python $(BIN)/python --require-hashes --requirement requirements.lock; } || \
		$(PIP) install --no-compile --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@
	# Modules are compiled when they are imported. Those of the API and the workers at once, beside the next steps: otherwise
	# each of these processes compiles them.
	$(BIN)/python -c 'import api.app, indexer.chores, infra.queue' >.venv/compiled 2>&1 &
