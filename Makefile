# One virtual environment, .venv/, and everything that runs from it. Needs Python >= 3.11 and a package index.
#
#   make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cpu
#
# takes torch (and nothing else) from another index: the Linux build on PyPI brings the CUDA libraries with it.

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMMA := ,
INSTALL := $(PIP) install -q -c constraints-cpu.txt
SOURCES := pyproject.toml constraints-cpu.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint types wheel clean
.DELETE_ON_ERROR:

help:
	@echo "make quickstart   install into .venv/ and run the quick start on this machine"
	@echo "make test         install the test tools too and run the tests (ARGS= for pytest)"
	@echo "make lint         ruff check, ruff format --check"
	@echo "make types        mypy on the built wheel"
	@echo "make wheel        dist/*.whl"
	@echo "make clean        remove builds and caches; .venv/ stays"
	@echo "PYTHON=           the interpreter for .venv/, 3.11 or newer (now: $(PYTHON))"
	@echo "TORCH_INDEX=      another index for torch, e.g. https://download.pytorch.org/whl/cpu"

quickstart: .venv/.installed-run
	$(BIN)/erpd-hub run quickstart $(ARGS)

test: .venv/.installed-test
	$(BIN)/pytest $(ARGS)

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the editable install into evaluation/, spaces/ and model_cards/; it can follow a wheel.
types: wheel
	@$(PIP) install -q --no-deps --target build/types dist/*.whl
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p erpd_hub

# A build folder left from before would put files into the wheel that no longer exist.
wheel: .venv/.installed-test
	@rm -rf build dist
	$(PIP) wheel -q --no-deps -w dist .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: $(PYTHON): expected Python 3.11 or newer, got $$($(PYTHON) --version 2>/dev/null || echo none); set PYTHON=python3.12 or the like" >&2; \
	  exit 1; }
	@echo "creating .venv/ with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@touch $@

# The pinned torch from TORCH_INDEX comes first and alone; the install after it finds it in place.
define install
@echo "installing erpd-hub[$(1)] into .venv/ (some minutes the first time)"
@if [ -z "$(TORCH_INDEX)" ] && [ "$$(uname)" = Linux ] && ! command -v nvidia-smi > /dev/null; then \
  echo "  no NVIDIA GPU here: PyPI's torch for Linux would bring some GB of CUDA libraries all the same;"; \
  echo "  TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the CPU build"; fi
@$(if $(TORCH_INDEX),$(INSTALL) --no-deps --index-url $(TORCH_INDEX) torch,true)
@$(INSTALL) -e '.[$(1)]'
endef

.venv/.installed-run: $(SOURCES) | .venv/.created
	$(call install,train$(COMMA)eval)
	@touch $@

.venv/.installed-test: $(SOURCES) | .venv/.created
	$(call install,test)
	@touch .venv/.installed-run $@
