# Every command sets itself up: a virtual environment in .venv, installed once per change of the requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint types check web pictures clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##  */make \1\t/p' Makefile | expand -t 16

demo: $(STAMP)  ## export `portrait`, verify it, segment a real photo, time it; look at demo-output/
	$(BIN)/python -m edge_deeplab.demos.quickstart --output demo-output

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4

lint: $(STAMP)  ## ruff: rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

web:  ## fetch what the browser demo takes from npm, pinned, and type-check its page; needs npm
	cd demos/web/npm && npm ci --ignore-scripts && npm run vendor && npm run check

pictures: $(STAMP)  ## the README's pictures, from photos that come with scikit-image
	$(BIN)/python -m edge_deeplab.demos.readme_pictures

check: lint types test  ## what CI runs

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV), once: some minutes and 7 GB, nearly all of it PyTorch for NVIDIA GPUs (README.md says how to do without)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[all,dev]'
	touch $@

clean:  ## remove what the others made
	rm -rf $(VENV) build dist demo-output *.egg-info demos/web/npm/node_modules
