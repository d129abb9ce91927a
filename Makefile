# Every target sets up what it needs; nothing else has to be installed than git, make and a Python from 3.10 to 3.13.
# `make test PYTHON=python3.12` takes that Python, in an environment of its own; `make test TESTS=tests/flags` a part.
SHELL := /bin/bash
ifdef PYTHON
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PYTHONS := $(PYTHON)
else
VENV := .venv
PYTHONS := python3.11 python3.12 python3.13 python3.10 python3 python
endif
BIN := $(VENV)/bin
WORKSPACE ?= workspace
TORTURE_MINUTES ?= 60
.PHONY: demo test test-large torture lint audit docs bench clean

demo: $(VENV)/.ready
	$(BIN)/tfcxr study --flagfile=study/phantom --workspace=$(WORKSPACE)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not large" -n logical --dist=loadgroup --no-loadscope-reorder $(TESTS)

test-large: $(VENV)/.ready
	$(BIN)/python -m pytest -m large

torture: $(VENV)/.ready
	$(BIN)/python -m tools.torture --minutes=$(TORTURE_MINUTES)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.requirements $(VENV)
	$(BIN)/deptry . --requirements-files $(VENV)/requirements.txt --requirements-files-dev $(VENV)/requirements-test.txt

# Known weaknesses of the installed libraries; needs the internet.
audit: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[audit]'
	$(BIN)/pip-audit --skip-editable $$(sed -n 's/^[A-Z]/--ignore-vuln &/p' tools/accepted_risks.txt)

docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# One table of ours against yardsticks, bench/bench.md; `make bench BENCH="--only=gan --short"` a part of it.
bench: $(VENV)/.ready
	$(BIN)/python -m tools.bench $(BENCH)

# Built again only when setup.cfg changes. A Python counts if its version fits and it can make virtual environments.
# The pip that comes with Python 3.10 does not find versions that fit together; hence --upgrade-deps.
$(VENV)/.ready: setup.cfg
	@python=; for candidate in $(PYTHONS); do \
	  if $$candidate -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	  then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "error: $(or $(PYTHON),no python on PATH): is not a Python from 3.10 to 3.13 with the venv module; install one" >&2; \
	  exit 1; fi; \
	set -e; $$python -m venv --clear --upgrade-deps $(VENV); \
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[beam,dicom,imagenet,onnx,parquet,serving,test]'
	@touch $@

# What builds the site is installed only for it.
$(VENV)/.docs-ready: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv .venv-3.* build *.egg-info
