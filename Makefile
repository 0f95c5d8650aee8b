# Everything happens in .venv; `make search` and `make test` set it up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup search test test-all faults check lint docs wheel clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $(READY)

# The main job: search, train and compare on the embedded models and tasks. One thread is as fast with
# so small a model, and on a busy machine, where threads wait for each other, many times faster.
search: setup
	OMP_NUM_THREADS=1 $(BIN)/prefixnas search --space default --strategy darts

# Two processes of one thread each: the tiny models of the tests gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: setup
	$(PYTEST) -m "not slow"

# With the tests that are not needed at every change.
test-all: setup
	$(PYTEST)

# Kills, full disks and damaged files by the hundred, about an hour; docs/reliability.md has the table.
faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

# The documentation as a site, in site/; a link that leads nowhere ends it.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: lint test

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist site *.egg-info
