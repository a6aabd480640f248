# Each target works on a fresh machine that has Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo comparison test test-slow lint benchmark docs clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --prefer-binary -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

# Three seeds of each network on the jets in DATA: make comparison DATA=path/to/jets
DATA ?= data/top
comparison: install
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/compare_seeds.sh $(DATA) runs/comparison

test: install
	$(BIN)/pytest

# Some of them: make test-slow ONLY=tests/training
test-slow: install
	$(BIN)/pytest -m slow $(ONLY)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: install
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: install
	$(BIN)/python scripts/document_configuration.py
	$(BIN)/python scripts/document_batch_scripts.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
