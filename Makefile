# Everything a new user or developer types. Needs Python >= 3.11 and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0

.PHONY: help demo install test test-fast check format docs-keys bench bench-env clean

help:  ## Show these lines.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: install  ## Train a ViT on real handwritten digits, about a minute; SEED=1 for another run.
	$(BIN)/vitreous train digits --seed $(SEED)

install: $(VENV)/installed  ## Make .venv and install vitreous into it.

test: $(VENV)/installed-dev  ## Run all tests.
	$(BIN)/python -m pytest -n auto

test-fast: $(VENV)/installed-dev  ## Run the tests that take less than a few seconds each.
	$(BIN)/python -m pytest -n auto -m "not slow"

check: $(VENV)/installed-dev  ## Lint, types, layers.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev  ## Let ruff write the code the way `check` wants it.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs-keys: $(VENV)/installed-dev  ## Write docs/keys.md again after a configuration key has changed.
	$(BIN)/python -m tests.contract.test_keys_doc

bench: .venv-bench/installed  ## Compare the speed with other libraries, half an hour; prints the table.
	.venv-bench/bin/python benchmarks/throughput.py

bench-env: .venv-bench/installed  ## Make .venv-bench, with the libraries that benchmarks compare with.

clean:  ## Remove what the targets above made, but no runs.
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# pip is upgraded first: the one that comes with Python 3.11 knows no dependency groups.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "PYTHON=$(PYTHON): is $$($(PYTHON) --version), 3.11 or newer is needed; use make PYTHON=python3.12 demo" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/installed: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed
	$(BIN)/pip install --quiet --group dev
	@touch $@

# Their wheels ask for another torch than the CPU's, so the peers come without what they ask for: the rest is here.
.venv-bench/installed: pyproject.toml benchmarks/environment.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-bench/bin/pip install --quiet --editable . --group test
	.venv-bench/bin/pip install --quiet --no-deps --requirement benchmarks/environment.txt
	@touch $@
