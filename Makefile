# `make demo` and `make test` are all the set-up there is: each makes .venv from a lock file first.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-lower-bounds fuzz lint typecheck bench docs lock clean

.venv/base: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

.venv/dev: .venv/base requirements-dev.lock
	$(BIN)/python -m pip install --quiet -r requirements-dev.lock
	@touch $@

demo: .venv/base
	$(BIN)/rimap demo

test: .venv/dev lint typecheck
	$(BIN)/python -m pytest -n 2

# The oldest versions that pyproject.toml allows: arrays of NumPy 1 lack what those of NumPy 2 have.
LOWER := .venv-lower
test-lower-bounds:
	$(PYTHON) -m venv $(LOWER)
	$(PYTHON) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); \
	print(*(d.replace('>=', '==') for d in p['project']['dependencies']), sep='\n')" > $(LOWER)/requirements.txt
	$(LOWER)/bin/python -m pip install --quiet -r $(LOWER)/requirements.txt "pytest>=8" "hypothesis>=6.100"
	$(LOWER)/bin/python -m pip install --quiet --no-deps --editable .
	$(LOWER)/bin/python -m pytest tests/estimators/test_nlls.py tests/estimators/test_rim_mapping.py tests/workflow/test_slabs.py

# Every night: other cases each time. `make test` tries a few hundred, always the same.
fuzz: .venv/dev
	RIMAP_FUZZ=$${RIMAP_FUZZ:-10000} $(BIN)/python -m pytest -n 2 tests/fuzz

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py

typecheck: .venv/dev
	$(BIN)/mypy

bench: .venv/dev
	$(BIN)/python -m benchmarks

# The site, with no network: open site/index.html. Anything odd in it is an error.
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Needs pip-tools. The lock files are plain pip requirements: torch is pinned in the dev lock alone.
lock: pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links -o requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --extra train --extra dev --extra docs -c requirements.lock -o requirements-dev.lock pyproject.toml
	sed -i 's/^torch==2.13.0+cpu/torch==2.13.0/' requirements-dev.lock

clean:
	rm -rf .venv build dist site runs rimap-demo
