# Set-up and everyday commands; `make` alone lists them.
#
#     make train ARGS='--epochs=5 --seed=1'
#     make test ARGS='tests/experiment/test_runs.py -x'
#     make train PYTHON=python3.12
#
# Every command that needs .venv makes it first, and starts at once when it is done.

PYTHON ?= python3
ARGS ?=
# Files of tests that run at a time; 0 runs them in one process.
JOBS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
# Written when the set-up is complete, and holds the checkout's path: the package is
# installed in place, so a .venv that was moved or copied would run the old place's code.
READY := $(VENV)/.ready
# A .venv that is absent, half-made, moved or without its interpreter starts over.
FRESH := $(shell test -x $(RUN) && grep -qsxF "$(CURDIR)" $(READY) || echo yes)
# The oldest versions that setup.cfg allows, beside the everyday ones.
LOWEST := .venv-lowest
PIP_INSTALL := -m pip install -qq --no-input --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help train test test-lowest lint docs notebook wheel clean always

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

train: $(READY) ## Train LeNet-5 on MNIST; ARGS='--help' lists the flags
	@$(RUN) scripts/train.py $(ARGS)

test: $(READY) ## Run the tests; ARGS goes to pytest
	@$(RUN) -m pytest -q --numprocesses=$(JOBS) --dist=loadfile $(ARGS)

test-lowest: $(LOWEST)/.ready ## Run the tests with the oldest versions allowed
	@# TensorFlow 2.17 to 2.19 write notices that no setting silences.
	@$(LOWEST)/bin/python -m pytest -q $(ARGS) \
	    --deselect=tests/parallel/test_workers.py::test_only_the_chief_tells

lint: $(READY) ## Check the style, the format and the types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy lenet_tf benchmarks

docs: $(READY) ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "site/index.html is ready; to search: $(RUN) -m http.server -d site"

notebook: $(READY) ## Run examples/lenet.ipynb and keep its outputs
	@$(RUN) scripts/run_notebook.py examples/lenet.ipynb

wheel: $(READY) ## Build the package into dist/
	@$(RUN) -m pip wheel -q --disable-pip-version-check --no-deps -w dist .
	@rm -rf build

clean: ## Remove environments, build files and caches; runs and data stay
	@rm -rf $(VENV) $(LOWEST) build dist site *.egg-info
	@rm -rf .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): setup.cfg constraints.txt $(if $(FRESH),always)
	@command -v $(PYTHON) >/dev/null || { \
	    echo "$(PYTHON) is not there: install Python 3.10 or newer, or name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
	    "Python %s is too old: lenet_tf needs 3.10 or newer, name one with make PYTHON=..." \
	    % sys.version.split()[0])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes) ..."
	@rm -f $@
	@$(if $(FRESH),$(PYTHON) -m venv --clear $(VENV))
	@$(RUN) $(PIP_INSTALL) -c constraints.txt -e '.[all,test,docs]'
	@echo "$(CURDIR)" > $@

$(LOWEST)/.ready: setup.cfg constraints-lowest.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 13) or sys.exit( \
	    "the oldest TensorFlow needs Python 3.10 to 3.12: make test-lowest PYTHON=python3.11")'
	@echo "Setting up $(LOWEST) (once; a few minutes) ..."
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(LOWEST)/bin/python $(PIP_INSTALL) -c constraints-lowest.txt -e '.[test]'
	@touch $@
