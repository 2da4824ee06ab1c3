# The contract: what people, hooks and CI call. `make help` lists the targets.
#
#   PYTHON=python3.12      the interpreter that .venv is made with (3.11 or newer)
#   TORCH_BACKEND=cpu      the CPU build of torch (1 GB of disk) in place of the CUDA build (5 GB)
#   DATA=reviews.json.gz   `make demo` on your own reviews; `make bench` on lines of a user and their items,
#                          `make bench-precompute` on your reviews

PYTHON ?= python3
TORCH_BACKEND ?=
DATA ?=
RUN ?= demo/synthetic/run

VENV := .venv
BIN := $(VENV)/bin
# Paths of their own, so that an activated environment elsewhere does not decide.
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
MATURIN := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin
EXTRAS := minilm tensorboard baselines explore browser ray dev
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
NEED_GB := $(if $(filter cpu,$(TORCH_BACKEND)),2,7)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser screenshots lint bench bench-core bench-precompute clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@sed -n 's/^#   \([A-Z_]*=.*\)/  \1/p' Makefile

setup: $(VENV)/.extension  ## .venv with everything, the extension built in release mode

demo: setup  ## all stages on a generated corpus, or on DATA=FILE
	$(BIN)/llmdirect demo $(if $(DATA),--data "$(DATA)")

test: setup  ## Rust and Python tests
	cargo test --quiet --workspace
	$(BIN)/pytest

test-browser: setup  ## the pages of `explore` in Chromium (Debian: apt-get install chromium)
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null || \
		{ echo "chromium is missing: install it (Debian: apt-get install chromium), or leave this target out"; exit 1; }
	$(BIN)/pytest -m browser tests/explore/test_browser.py

screenshots: setup  ## docs/images of `explore` and `report`, from RUN (demo/synthetic/run)
	$(BIN)/python benches/screenshots.py $(RUN)

lint: setup  ## formatting, types, stubs, clippy: warnings are errors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/stubtest llmdirect._core
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings

bench: setup $(VENV)/.bench  ## speed of the core beside its peers: docs/benchmarks.md, from random data or DATA=FILE
	$(BIN)/python -W ignore benches/run.py $(DATA)

bench-core: setup $(VENV)/.bench  ## the core alone (criterion), and its path through Python (pytest-benchmark)
	cargo bench --quiet -p llmdirect-core
	$(BIN)/pytest -o filterwarnings= benches/test_speed.py

bench-precompute: setup $(VENV)/.bench  ## MiniLM beside sentence-transformers on the CPU, on generated reviews or DATA=FILE
	$(BIN)/python -W ignore benches/precompute_speed.py $(DATA)

clean:  ## removes .venv and build outputs
	rm -rf $(VENV) target python/llmdirect/_core*.so

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; give a newer one: make PYTHON=python3.12"; exit 1; }
	@command -v cargo > /dev/null || { echo "cargo is missing: install Rust 1.89 or newer (rustup)"; exit 1; }
	@test -d $(VENV)/lib || $(PYTHON) -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < $(NEED_GB) << 30)' || \
		{ echo "less than $(NEED_GB) GB free here: make room, or take the CPU build: make TORCH_BACKEND=cpu"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) \
		$(addprefix --extra ,$(EXTRAS)) -r pyproject.toml
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(UV) pip install --quiet --extra bench -r pyproject.toml
	touch $@

$(VENV)/.extension: $(VENV)/.installed $(RUST)
	$(MATURIN) develop --release --uv --quiet
	touch $@
