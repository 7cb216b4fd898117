# Everything starts from Python >= 3.11 and nothing else: each target first makes the environment it needs.

PYTHON ?= python3
VENV   ?= .venv

BIN   := $(VENV)/bin
STAMP := $(VENV)/.gliodil-installed

.DEFAULT_GOAL := help
.PHONY: help install demo test check format docs notebooks bench bench-odil clean

help:
	@echo "make demo      plan a synthetic patient whose truth is known; ends with the report's path"
	@echo "make test      run the tests"
	@echo "make check     lint, format check, types, layers"
	@echo "make docs      build the documentation into site/; any warning is an error"
	@echo "make notebooks execute the notebooks in examples/ and keep what they show"
	@echo "make format    format the code and fix what the linter can"
	@echo "make bench     run the benchmarks"
	@echo "make bench-odil  what fits, sweeps and optimizers cost (an hour)"
	@echo "make install   create the environment only"
	@echo "make clean     remove the environment and the tools' caches"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment ($(VENV))."

install: $(STAMP)

# The stamp is written last, so an installation cut short starts again.
$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "No '$(PYTHON)' found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gliodil needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)." >&2; \
	  echo "Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot create virtual environments: its venv module is missing." >&2; \
	  echo "On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch "$@"

demo: $(STAMP)
	@"$(BIN)/gliodil" demo --out gliodil-demo
	@echo "Report: $(CURDIR)/gliodil-demo/report.html"

# One numerical thread per worker: two workers with two threads each would fight over the cores.
test: $(STAMP)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 "$(BIN)/python" -m pytest -n 2 --dist worksteal

check: $(STAMP)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

format: $(STAMP)
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

# The reference is read from the sources, so nothing is imported and nothing fetched.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build --strict --quiet

notebooks: $(STAMP)
	"$(BIN)/python" tests/helpers/notebooks.py

bench: $(STAMP)
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; "$(BIN)/python" "$$script"; done

bench-odil: $(STAMP)
	"$(BIN)/python" benchmarks/bench_odil.py
	"$(BIN)/python" benchmarks/bench_sweeps.py
	"$(BIN)/python" benchmarks/bench_optimizers.py

clean:
	rm -rf "$(VENV)" .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site
