PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: help demo test lint types contracts pytest protos clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1#\2/p' Makefile | column -t -s '#'

demo: $(STAMP) ## train digits synchronously, then asynchronously, and compare the two
	$(BIN)/python scripts/demo.py

test: lint types contracts pytest ## everything that CI checks

lint: $(STAMP) ## style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

# --no-cache: the cache does not notice that a module which was imported before it existed is there now.
contracts: $(STAMP) ## who may import whom
	$(BIN)/lint-imports --no-cache --no-logo

# The tests that start a real Ray form one group, so that two clusters never fight for the cores. A test that hangs
# ends its process; without a restart limit, the group would be tried again and again.
pytest: $(STAMP) ## the tests alone
	$(BIN)/pytest -n 2 --dist loadgroup --max-worker-restart 0

protos: $(STAMP) ## generate psgd/transport/generated from protos/
	rm -rf psgd/transport/generated
	$(BIN)/python scripts/generate_protos.py psgd/transport/generated

clean: ## remove the environment and every cache
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find psgd scripts tests -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
