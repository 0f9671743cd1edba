# make run     set up .venv, then open the app          make test    set up .venv, then run the tests
# make check   lint, format and types                   make bench   timings of training and of the app
# make soak    long campaigns                           make clean   remove .venv and caches
#
# PYTHON=python3.12 chooses the interpreter for .venv; ARGS="…" goes to the app or to pytest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest
ARGS ?=

.PHONY: run test check bench soak settings constraints clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	@$(BIN)/workbench $(ARGS)

test: $(VENV)/.installed-test
	$(PYTEST) -n 3 --dist worksteal --durations=15 $(ARGS)

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test
	@for file in benchmarks/[a-z]*.py; do \
	    name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done
	@echo "== recipes, through the app and by commands"; $(BIN)/python -m pytest -m bench -s $(ARGS)

soak: $(VENV)/.installed-test
	$(PYTEST) -m soak $(ARGS)

# Both are written from what they describe: the specs, and the packages in .venv.
settings: $(VENV)/.installed
	$(BIN)/python -m workbench.settings_example > workbench.toml

constraints: $(VENV)/.installed-test
	@{ echo "# Exact versions of everything the app and its tests use, for Python 3.11 to 3.13. Written by make constraints."; \
	   echo "# The CUDA libraries that some builds of torch bring are pinned by torch itself."; \
	   $(BIN)/python -m pip freeze --all --exclude-editable \
	   | sed -E -e 's/\+[a-z0-9.]+$$//' -e '/^(pip|wheel)==/d' -e '/^(nvidia-[a-ln-z]|cuda-)/d'; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV): the first time this takes some minutes."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) for tests: the first time this takes some minutes."
	@$(INSTALL) -e '.[test]'
	@touch $(VENV)/.installed $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	    echo "error: there is no $(PYTHON) here. Install Python 3.11 or newer, or name it: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed. Name one: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: $(PYTHON) cannot make a virtual environment. Install its venv module (Debian, Ubuntu: python3-venv)." >&2; exit 1; }
