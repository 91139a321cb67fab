# `make demo` and `make test` are all the set-up there is: each makes .venv from a lock file first.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-lower-bounds fuzz mutation lint typecheck bench docs dist lock clean

.venv/base: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# torch is apart and without hashes: its builds for CPU and for CUDA are different files, and that for CUDA brings packages that
# the others lack. What it needs on a CPU is in requirements-dev.lock and comes first.
.venv/dev: .venv/base requirements-dev.lock requirements-torch.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet -r requirements-torch.lock
	$(BIN)/python -m pip check
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

# Meant for every night, with other cases each time. `make test` tries a few hundred, always the same.
fuzz: .venv/dev
	RIMAP_FUZZ=$${RIMAP_FUZZ:-10000} $(BIN)/python -m pytest -n 2 tests/fuzz

# Meant for every night: changes one operator or constant at a time and prints the changes that no test notices.
mutation: .venv/dev
	$(BIN)/python -m benchmarks.mutation --mutants $${RIMAP_MUTANTS:-320} --seed $${RIMAP_SEED:-$$(date +%j)}

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

# What is released, in dist/. The wheel is built twice, and the release stops if the bytes differ.
dist: .venv/dev
	rm -rf dist build/again
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --wheel --outdir build/again
	cmp dist/*.whl build/again/*.whl

# Needs uv. The hashes are those of every file of a release, so one lock serves every platform and Python version. Versions stay
# as they are unless they have to change: `make lock UPGRADE=--upgrade` takes new ones.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --strip-extras --no-header --no-annotate --no-emit-index-url $(UPGRADE)
lock: pyproject.toml
	$(LOCK) -o requirements.lock pyproject.toml
	$(LOCK) --extra cluster -c requirements.lock -o requirements-container.lock pyproject.toml
	echo 'torch; python_version < "0"' > .venv/no-torch.txt
	printf '%s\n' filelock fsspec jinja2 networkx sympy typing-extensions > .venv/needs-of-torch.txt
	$(LOCK) --extra train --extra dev --extra docs -c requirements-container.lock --override .venv/no-torch.txt \
	  -o requirements-dev.lock pyproject.toml .venv/needs-of-torch.txt

clean:
	rm -rf .venv build dist site runs rimap-demo
