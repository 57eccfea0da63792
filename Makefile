# Everything runs in .venv, which `make install` creates. `make help` lists the targets.

BIN := .venv/bin
STAMP := .venv/.installed
JOBS ?= 2
PYTHON ?=
ARGS ?=
CANDIDATES := python3.13 python3.14 python3.12 python3

.PHONY: help install test test-slow lint format demo bench docs tutorial lock build clean distclean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

install: $(STAMP)  ## create .venv with the locked dependencies and eqprop, editable

$(BIN)/python:
	@python="$(PYTHON)"; \
	new='import sys; sys.exit(sys.version_info < (3, 12))'; \
	for candidate in $(CANDIDATES); do \
		if [ -z "$$python" ] && "$$candidate" -c "$$new" >/dev/null 2>&1; then \
			python="$$candidate"; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "eqprop needs Python 3.12 or newer; none of '$(CANDIDATES)' is one." >&2; \
		echo "Install one, or name it: make install PYTHON=path/to/python" >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c "$$new"; then \
		echo "eqprop needs Python 3.12 or newer; '$$python' is not." >&2; \
		exit 1; \
	fi; \
	echo "creating .venv with $$("$$python" --version)"; \
	"$$python" -m venv --clear .venv

# hatchling is in the lock, so nothing outside it is fetched to build the editable install.
$(STAMP): pyproject.toml requirements.lock | $(BIN)/python
	@echo "installing requirements.lock"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		--no-deps --no-build-isolation --editable .
	@touch $@

test: install  ## run the tests (ARGS="-k idx" goes to pytest, JOBS=1 for one process)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-slow: install  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: install  ## ruff, import-linter and basedpyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

format: install  ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: install  ## train the smallest published recipe for three epochs, or go on with that
	@if [ -e runs/demo/run.json ]; then \
		$(BIN)/eqprop resume runs/demo; \
	else \
		$(BIN)/eqprop train ep-1h --epochs 3 --out runs/demo; \
	fi

bench: install  ## time the recipes on this machine
	$(BIN)/eqprop bench $(ARGS)

docs: install  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

tutorial: install  ## run the tutorial notebook and keep its outputs
	$(BIN)/python -c "import nbclient, nbformat; path = 'docs/tutorial.ipynb'; \
		notebook = nbformat.read(path, as_version=4); \
		client = nbclient.NotebookClient(notebook, coalesce_streams=True, record_timing=False); \
		client.execute(); nbformat.write(notebook, path)"

# Not after a full install: a lock that cannot be installed has to be replaceable.
lock: | $(BIN)/uv  ## renew requirements.lock from pyproject.toml (ARGS="--upgrade" for newer versions)
	UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet --universal --python-version 3.12 \
		--python $(BIN)/python --extra dev --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" $(ARGS) \
		--output-file requirements.lock pyproject.toml

$(BIN)/uv:
	@$(MAKE) install

build: install  ## build the wheel and the source archive into dist/
	$(BIN)/python -m build --no-isolation

clean:  ## remove caches and build outputs (runs/ stays)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis site
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv
	rm -rf .venv
