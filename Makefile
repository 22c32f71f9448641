# What a visitor and CI run. `make` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The stamp's name is a checksum of what decides the installation, so a touched file alone installs nothing.
STAMP  := $(VENV)/.setup-$(shell cat pyproject.toml constraints.txt Makefile | cksum | tr ' ' '-')
FAST   := not slow and not all
STORE  := sqlite
STORM  := --runs 40 --steps 60 --workers 6 --deaths 200 --freezes 12
# A late writer is rare: a mutant is sought where half of the steps freeze.
ROUGH  := --runs 8 --steps 15 --deaths 60 --freezes 60 --lease 0.5 --seed 2
QUICK  := tests/test_house.py tests/core tests/engine tests/http

.DEFAULT_GOAL := help
.PHONY: help setup demo servers engines check test web test-all storm bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-9s %s\n' "$$name" "$$what"; done

setup: $(STAMP) ## make .venv with everything pinned (needs Python 3.11 or newer)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "steprelay needs Python 3.11 or newer, and $(PYTHON) is not: make setup PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "» $(VENV)"; $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install -y python3-venv" >&2; exit 1; }
	@echo "» uv"; test -x $(BIN)/uv || { $(BIN)/python -m ensurepip --upgrade >/dev/null && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv; }
	@echo "» steprelay and its tools (about 70 packages)"
	@$(BIN)/uv pip install --python $(BIN)/python -e '.[postgres,pydantic-ai,restate,temporal,inngest]' --group dev -c constraints.txt
	@rm -f $(VENV)/.setup-* && touch $@

demo: setup ## watch a run survive kill -9 of its server
	@$(BIN)/steprelay demo

servers: ## the database servers and the browser the tests talk to (Debian packages, as root)
	@bash scripts/install-test-servers.sh
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }

engines: ## the durable engines the tests talk to, built into ~/.cache (needs npm, and Go 1.25 or newer; minutes, once)
	@command -v redis-server >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends redis-server; }
	@sh scripts/build-engines.sh

check: setup ## format, lint, import contracts, types, fast tests: seconds
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@$(BIN)/pytest -m '$(FAST)' $(QUICK)

test: setup servers ## everything a visitor should run: at most 15 minutes on 2 cores
	@sh scripts/build-engines.sh restate || echo "engines: the tests against Restate are left out"
	@$(BIN)/pytest -m 'not all'
	@sh scripts/check-web.sh

web: setup ## the browser client alone: format, types, tests, build, size (needs Node 20.19 or newer)
	@sh scripts/check-web.sh

test-all: setup servers engines ## what `test` leaves out: long storms and builds; and every durable engine
	@command -v spin >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends spin gcc libc6-dev; }
	@STEPRELAY_TEST_ENGINES=all $(BIN)/pytest -m 'all or engines' --timeout 1800

storm: setup servers ## kill, freeze, cut for a minute: STORE=sqlite|postgres|pgbouncer MUTANT=... ARGS=...
	@$(BIN)/python -m steprelay.testing.storm --store $(STORE) $(if $(MUTANT),$(ROUGH) --mutant $(MUTANT),$(STORM) \
		$(if $(filter-out sqlite,$(STORE)),--crashes 2 --cuts 40)) $(ARGS)

bench: setup ## the figures of the docs, measured here
	@$(BIN)/python -m benchmarks

clean: ## remove everything that make made
	rm -rf $(VENV) .steprelay .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist web/node_modules web/packages/*/node_modules web/packages/*/dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
