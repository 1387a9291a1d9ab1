# `make help` lists the targets. Everything happens in .venv, which is made on first use and reused.
VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
ARGS   ?=
# Of the tests: one more than there are cores, because many wait for processes that they started.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() + 1, 8))')

.DEFAULT_GOAL := help
.PHONY: help setup train test check bench format tensorboard clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## make the virtual environment (.venv) and install the project into it

# Installed again whenever the dependencies change; an interrupted installation leaves no .installed and is repeated.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,search,slurm]'
	touch $@

train: setup  ## train: make train ARGS="experiment=mnist_conditional dataset.root=data"
	$(BIN)/python -m gan_runner.train $(ARGS)

test: setup  ## run the tests, on all cores: make test ARGS="-k resume"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## measure speed and start-up, five to ten minutes with nothing else running: make bench ARGS="starting pattern"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks $(ARGS)

format: setup  ## format the code and mend what lint can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tensorboard: setup  ## watch the runs at http://localhost:6006
	$(BIN)/tensorboard --logdir outputs $(ARGS)

clean:  ## remove caches and build output; runs and the virtual environment stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find gan_runner tests -name __pycache__ -type d -prune -exec rm -rf {} +
