# Each target sets up .venv when it is missing or out of date. Only Python (3.11 or newer, with venv) is assumed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo run test lint bench lock clean

demo: .venv/run.stamp
	@$(BIN)/lodemark demo $(ARGS)

run: .venv/run.stamp
	@$(BIN)/lodemark run

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/bench.stamp .venv/beside.stamp
	$(BIN)/python -m benchmarks $(ARGS)

# Hash-pinned locks that name no index.
lock: .venv/dev.stamp
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header --extra dev --extra bench -c requirements-dev.lock pyproject.toml -o requirements-bench.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-header benchmarks/beside.in -o requirements-beside.lock

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lodemark needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/run.stamp: .venv/python.stamp requirements.lock pyproject.toml
	@echo "setting up .venv ..."
	@started=$$(date +%s); $(PIP) --require-hashes --no-deps -r requirements.lock \
	 && PYTHONWARNINGS=ignore $(PIP) --no-deps --no-build-isolation --editable . \
	 && echo "installed in $$(( $$(date +%s) - started )) s"
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/run.stamp
	@$(PIP) --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

# statsforecast asks for an older pandas than ours: an environment of its own.
.venv/beside.stamp: requirements-beside.lock .venv/python.stamp
	@$(PYTHON) -m venv --clear .venv/beside
	@.venv/beside/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-beside.lock
	@touch $@

.venv/bench.stamp: requirements-bench.lock .venv/dev.stamp
	@$(PIP) --require-hashes --no-deps -r requirements-bench.lock
	@touch $@

clean:
	rm -rf .venv build *.egg-info
