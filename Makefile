# Every target sets up what it needs; nothing else has to be installed than git, make and a Python 3.11 (or 3.10).
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE ?= workspace
.PHONY: demo test test-large lint docs bench clean

demo: $(VENV)/.ready
	$(BIN)/tfcxr study --flagfile=study/phantom --workspace=$(WORKSPACE)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not large"

test-large: $(VENV)/.ready
	$(BIN)/python -m pytest -m large

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.ready
	$(BIN)/python -m tools.bench
	$(BIN)/python -m tools.bench_records
	$(BIN)/python -m tools.bench_gan
	$(BIN)/python -m tools.bench_classifiers

# Built again only when setup.cfg changes. A Python counts if it is 3.11 or 3.10 and can make virtual environments.
$(VENV)/.ready: setup.cfg
	@python=; for candidate in python3.11 python3.10 python3 python; do \
	  if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 10)))' 2>/dev/null; \
	  then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 or 3.10 with the venv module on PATH; TensorFlow 2.15 needs one" >&2; exit 1; fi; \
	set -e; $$python -m venv --clear $(VENV); \
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[beam,dicom,onnx,test]'
	@touch $@

# What builds the site is installed only for it.
$(VENV)/.docs-ready: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
