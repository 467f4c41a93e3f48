# One environment, .venv, for everything below; it is made once and again when pyproject.toml, constraints.txt or
# the version change.
# Needs Python >= 3.11 and git. Another interpreter: `make demo PYTHON=/path/to/python3.12`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
INSTALLED := .venv/.installed
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)

.PHONY: help demo test test-long docs dist coverage test-lowest audit mutation lab clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## Train on the shipped crystals, predict a CIF, draw a figure (results in runs/demo)
	@$(BIN)/python scripts/demo.py --output runs/demo
	@echo "Results: $(CURDIR)/runs/demo"

# Two processes, each with whole files of tests, so that fixtures of a file are made once and a file's tests run in one
# process. The long notebooks come first. OMP_NUM_THREADS: small tensors gain nothing from more threads, and the processes
# have a core each.
# PYRIGHT_PYTHON_IGNORE_WARNINGS: pyright does not ask the network whether a newer release exists.
test: export OMP_NUM_THREADS ?= 1
test: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
test: $(INSTALLED) ## Everything that CI checks: format, lint, import layers, types, tests, notebooks
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/pyright
	rm -rf docs/notebooks && cp -r notebooks docs/notebooks
	$(BIN)/pytest --numprocesses 2 --dist loadfile --nbmake --overwrite --nbmake-timeout=600 docs/notebooks tests
	@touch $(EXECUTED)

# Notebooks run once, in copies that keep their outputs for the pages; `make test` makes these copies, too.
EXECUTED := docs/notebooks/.executed

docs: export OMP_NUM_THREADS ?= 1
docs: $(EXECUTED) ## Build the documentation site, without a network (build/docs/index.html)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html docs build/docs
	@echo "Open $(CURDIR)/build/docs/index.html"

$(EXECUTED): $(INSTALLED) $(shell find notebooks crystalframer viz -name '*.ipynb' -o -name '*.py' -o -name '*.js' 2> /dev/null)
	rm -rf docs/notebooks && cp -r notebooks docs/notebooks
	$(BIN)/pytest --numprocesses 2 --dist loadfile --nbmake --overwrite --nbmake-timeout=600 docs/notebooks
	@touch $@

# The fuzzer goes on after the seeds in its record, a copy of the one that is published.
FUZZ := $(BIN)/python scripts/fuzz.py --record build/fuzz.json --minutes 5 --count 100000
test-long: export OMP_NUM_THREADS ?= 1
test-long: $(INSTALLED) ## A quarter of an hour of trials: killed runs, strange structures, damaged files
	$(BIN)/pytest --numprocesses 2 -m long tests
	mkdir -p build
	test -f build/fuzz.json || cp benchmarks/results/fuzz.json build/fuzz.json
	$(FUZZ) structures
	$(FUZZ) files

dist: $(INSTALLED) ## Build wheel and source distribution into dist/; install, predict and run a notebook with them
	$(BIN)/python scripts/prove_dist.py --output dist $(if $(PYTHON),--python $(PYTHON))

coverage: export OMP_NUM_THREADS ?= 1
coverage: $(INSTALLED) ## Which lines the tests run; fails below 95 %
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile tests
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# uv resolves to the oldest releases that pyproject.toml allows. On Linux that torch brings several GB of CUDA packages.
# What old releases still call and newer ones below them deprecate is nobody's error.
test-lowest: export OMP_NUM_THREADS ?= 2
test-lowest: $(INSTALLED) ## The tests, with the oldest dependencies that are allowed (an environment of its own)
	$(BIN)/python -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet "uv>=0.9,<1"
	.venv-lowest/bin/uv pip install --python .venv-lowest/bin/python --resolution lowest-direct --editable ".[all]"
	.venv-lowest/bin/python -m pytest -W default::DeprecationWarning -W default::FutureWarning \
		--deselect tests/test_packaging.py::test_the_installed_versions_are_the_pinned_ones tests

audit: $(INSTALLED) ## Whether a pinned dependency has a published vulnerability (asks the network)
	$(BIN)/python -m venv --clear .venv-audit
	.venv-audit/bin/python -m pip install --quiet "pip-audit>=2.9,<3"
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# mutmut (its settings are in pyproject.toml) changes the modules in a copy, mutants/, in which each change meets the tests
# that reach it; a second run goes on where the first one ended. MUTANTS: only these, as patterns of names.
# It has an environment of its own, which also sees the packages of .venv.
mutation: export OMP_NUM_THREADS ?= 1
mutation: $(INSTALLED) ## Which small changes to four modules no test notices (an hour; docs/mutation.md)
	$(BIN)/python -m venv .venv-mutation
	.venv-mutation/bin/python -m pip install --quiet "mutmut==3.8.1"
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
	    > $$(.venv-mutation/bin/python -c "import site; print(site.getsitepackages()[0])")/packages-of-venv.pth
	.venv-mutation/bin/mutmut run $(MUTANTS)
	.venv-mutation/bin/mutmut results

# .jupyter: JupyterLab proposes no rebuild (dash brings an old extension that nothing here needs) and asks the network
# for no news.
lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/.jupyter$(if $(JUPYTER_CONFIG_PATH),:$(JUPYTER_CONFIG_PATH))
lab: $(INSTALLED) ## Open the first notebook in JupyterLab
	@$(BIN)/jupyter-lab notebooks/01_train.ipynb

clean: ## Remove the environment, caches and build products (runs/ stays)
	rm -rf .venv .venv-* mutants .coverage* .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
	rm -rf docs/notebooks docs/reference/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt crystalframer/_version.py
	@set -euo pipefail; \
	python=""; \
	for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	        python="$$candidate"; break; \
	    fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "crystalframer needs Python 3.11 or newer; none found among: $(CANDIDATES)." >&2; \
	    echo "Install one, or name yours: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	echo "Making .venv with $$("$$python" --version) and installing into it (once, several minutes)"; \
	"$$python" -m venv .venv
	@$(BIN)/python -m pip install --constraint constraints.txt --editable ".[all]"
	@touch $@
