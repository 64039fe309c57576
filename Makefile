# `make up` runs the product, `make test` proves it. Each first installs what it lacks into .venv; what is there
# already is not looked at again, so a second run starts at once and needs no network.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
ARGS   ?=
# Most tests wait for a process or a deadline: one worker more than cores uses that time. WORKERS=0: one after the other,
# as --pdb and -s want it.
WORKERS ?= 3
MINUTES ?= 10
export PATH := $(CURDIR)/$(BIN):$(PATH)

.NOTPARALLEL:
.PHONY: help up demo test soak long mutants check bench page tools clean

help:                         ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

up: $(VENV)/.up page          ## everything in one process tree, on http://localhost:8080
	@exec $(BIN)/vibezen-metrics up $(ARGS)

demo: $(VENV)/.up page        ## the same with simulated traffic, in a store of its own
	@exec $(BIN)/vibezen-metrics up --demo $(ARGS)

test: $(VENV)/.dev tools      ## all tests; ARGS go to pytest
	cd api/page && npm test --silent
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

soak: $(VENV)/.dev page       ## everything at once for MINUTES, under faults at random from SEED, on SERVER (valkey, redis)
	SOAK_MINUTES=$(MINUTES) SOAK_SEED=$(SEED) SOAK_SERVER=$(SERVER) $(BIN)/pytest -m soak -o faulthandler_timeout=0 tests/faults/test_soak.py $(ARGS)

long: $(VENV)/.dev page       ## the long form of tests that `make test` runs shortened; ARGS go to pytest
	$(BIN)/pytest -m soak -o faulthandler_timeout=0 --ignore=tests/faults/test_soak.py $(ARGS)

mutants: $(VENV)/.dev         ## take each protection out in turn and see that its test fails; ARGS name mutants
	$(BIN)/python -m tests.faults.mutants.run --workers $(WORKERS) $(ARGS)

check: $(VENV)/.dev tools     ## format, lint, types, import law, the page's types, the built wheel
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd api/page && npm run check --silent
	$(BIN)/python build_backend/check_wheel.py

bench: $(VENV)/.bench         ## what the design promises, measured beside peers; ARGS name benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

page: $(VENV)/.made           ## build the page if its sources changed
	@$(BIN)/python build_backend/page.py

tools: $(VENV)/.made          ## what the page's own tests need: npm and node_modules
	@$(BIN)/python build_backend/page.py tools

clean:                        ## forget everything installed and built; stores stay
	rm -rf $(VENV) build dist *.egg-info api/page/dist api/page/.built-from api/page/node_modules

# A .venv that was left half made (Debian without python3-venv does that) or is too old is made anew.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vibezen-metrics needs Python 3.11 or newer; this is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); } || \
	  { rm -rf $(VENV); echo "Python's venv module is missing. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PIP) install -q -U 'pip>=25.1'      # older ones know no dependency groups
	@touch $@

$(VENV)/.up: $(VENV)/.made pyproject.toml build_backend/backend.py
	@echo "installing vibezen-metrics into $(VENV) (once)"
	@PYTHONWARNINGS=ignore $(PIP) install -q -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.up
	@echo "installing development tools into $(VENV) (once)"
	@$(PIP) install -q --group dev
	@touch $@

$(VENV)/.bench: $(VENV)/.up
	@echo "installing what benchmarks compare with into $(VENV) (once)"
	@$(PIP) install -q --group bench
	@touch $@
