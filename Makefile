# Everything that a new user or developer types. Needs Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
ROOM ?=

.PHONY: help demo install test test-fast test-room test-gpu fuzz check format docs docs-check docs-keys packages sbom bench bench-env clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: install  ## Train a ViT on real handwritten digits, about a minute; SEED=1 for another run.
	$(BIN)/vitreous train digits --seed $(SEED)

install: $(VENV)/installed  ## Create .venv and install vitreous into it.

test: $(VENV)/installed-dev  ## Run all tests.
	$(BIN)/python -m pytest -n auto

test-fast: $(VENV)/installed-dev  ## Run the tests that take less than a few seconds each.
	$(BIN)/python -m pytest -n auto -m "not slow"

test-room: $(VENV)/installed-dev  ## Run the fast tests of one room and the contract tests, e.g. ROOM=model.
	@test -n "$(ROOM)" -a -d "tests/unit/$(ROOM)" || { \
	  echo "ROOM=$(ROOM): no such folder in tests/unit; use make test-room ROOM=model" >&2; exit 2; }
	$(BIN)/python -m pytest -n auto -m "not slow" tests/unit/$(ROOM) tests/contract

test-gpu: $(VENV)/installed-dev  ## Run the tests that need an accelerator.
	$(BIN)/python -m pytest -m gpu

fuzz: $(VENV)/installed-dev  ## Read over 24,000 damaged inputs in some minutes; prints a line per domain.
	VITREOUS_FUZZ_EXAMPLES=4000 $(BIN)/python -m pytest -n auto -m fuzz tests/fuzz

check: $(VENV)/installed-dev  ## Run ruff, mypy and import-linter.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev  ## Format the code and fix what ruff can fix.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/installed-docs  ## Build the documentation in build/site, and check its links.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/scripts/check_site.py build/site
	@echo "open build/site/index.html"

docs-check: $(VENV)/installed-dev  ## Run every command and all Python of the tutorials, some minutes.
	$(BIN)/python -m pytest -n auto tests/docs/tutorials.py

docs-keys: $(VENV)/installed-dev  ## Write docs/keys.md again after a configuration key has changed.
	$(BIN)/python -m tests.contract.test_keys_doc

packages:  ## Build wheel and sdist and try each in new environments, in every Python here; many minutes.
	$(PYTHON) .ci/check_packages.py

sbom: $(VENV)/installed  ## Write build/sbom.json (CycloneDX) and build/licenses.md: what `make install` has installed.
	@mkdir -p build
	$(PYTHON) -m venv build/.venv-sbom
	build/.venv-sbom/bin/python -m pip install --quiet "cyclonedx-bom>=5" "pip-licenses>=5"
	sed "s/^dynamic = .*/version = \"$$($(BIN)/vitreous --version)\"/" pyproject.toml > build/pyproject.toml
	build/.venv-sbom/bin/cyclonedx-py environment --pyproject build/pyproject.toml --output-reproducible --output-file build/sbom.json $(BIN)/python
	build/.venv-sbom/bin/pip-licenses --python $(BIN)/python --format markdown --order license --with-urls --output-file build/licenses.md

bench: .venv-bench/installed  ## Compare the speed with other libraries, half an hour; prints the table.
	.venv-bench/bin/python benchmarks/throughput.py

bench-env: .venv-bench/installed  ## Create .venv-bench with the libraries that the benchmarks compare with.

clean:  ## Remove what the targets above created, except runs.
	rm -rf $(VENV) .venv-bench build .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# pip is upgraded first, because the version that comes with Python 3.11 does not support dependency groups.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "PYTHON=$(PYTHON): is $$($(PYTHON) --version), must be 3.11 or newer; use make PYTHON=python3.12 demo" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/installed: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed
	$(BIN)/pip install --quiet --group dev
	@touch $@

$(VENV)/installed-docs: pyproject.toml $(VENV)/installed
	$(BIN)/pip install --quiet --group docs
	@touch $@

# The other libraries require another build of torch, so they are installed without their dependencies, which are already here.
.venv-bench/installed: pyproject.toml benchmarks/environment.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-bench/bin/pip install --quiet --editable . --group test
	.venv-bench/bin/pip install --quiet --no-deps --requirement benchmarks/environment.txt
	@touch $@
