# Two commands are sacred: `make demo` and `make test`. Both set up .venv by themselves from a plain clone.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_SECONDS ?= 90
KILLS ?= 100
DB ?= sqlite
SEED ?= 7
SEEDS ?= 300
SEED0 ?= 1234

.PHONY: help demo test check format lock bench simulate faults mutants failures soak soak-kill clean

help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "SRM agent needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian run 'apt-get install python3-venv'"; exit 1; }
	@echo "setting up $(VENV) (about a minute, once)…"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "adding the development tools…"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.runtime ## SRM at work against a simulated Bybit over real sockets (DEMO_SECONDS=90 SEED=7)
	@$(BIN)/srm-agent demo --seconds $(DEMO_SECONDS) --seed $(SEED)

test: $(VENV)/.dev ## everything that proves the product, in minutes (see CONTRIBUTING.md)
	@$(BIN)/python -m tests.gates

check: $(VENV)/.dev ## what must pass before a commit: format, lint, types, import rules, fast tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest -q tests/unit tests/properties tests/architecture

format: $(VENV)/.dev ## put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

soak: $(VENV)/.dev ## the longer runs: 100,000 seeds, all mutants, 500 kills, a minute of flood, many more examples
	@$(BIN)/python -m simulator.simulation --seeds 100000 --seed0 1000
	@$(BIN)/python -m tests.mutants
	@SRM_TEST_PROFILE=soak $(BIN)/pytest -q tests

simulate: $(VENV)/.dev ## the whole daemon in virtual time, seed after seed (SEEDS=300 SEED0=1234)
	@$(BIN)/python -m simulator.simulation --seeds $(SEEDS) --seed0 $(SEED0)

mutants: $(VENV)/.dev ## harmful changes of execution and protection: do the seeds notice them?
	@$(BIN)/python -m tests.mutants

failures: $(VENV)/.dev ## 26 failures of other systems: each test sees the change that would bring its failure back
	@$(BIN)/python -m tests.failures

faults: $(VENV)/.dev ## the 72 faults of the catalogue by id: required, bound, measured, shown
	@$(BIN)/python -m tests.faults

soak-kill: $(VENV)/.dev ## kill -9 on real processes over sockets, and count (KILLS=100 DB=sqlite)
	@$(BIN)/python -m tests.soak.kill --kills $(KILLS) --db $(DB)

bench: $(VENV)/.dev ## measured hot paths beside a reference in the same run
	@$(BIN)/python -m tests.benchmarks

lock: ## write the lock files anew from requirements*.in (hashes, no index address)
	@$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv
	@$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" --upgrade requirements.in -o requirements.lock
	@$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" --upgrade requirements-dev.in -o requirements-dev.lock
	@rm -rf $(VENV)-lock

clean: ## remove what these commands made
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache var
