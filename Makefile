# Every target sets up what it needs in .venv; see scripts/install.sh. Nothing is downloaded but packages.
.PHONY: help install install-core kernels demo test test-slow test-gpu gpu-day lint format bench bench-gpu pictures docs fuzz audit clean full-size

BIN := .venv/bin
PY := $(BIN)/python
# Qt without a display, and one BLAS/OpenMP pool that does not spin on small machines
export QT_QPA_PLATFORM ?= offscreen
export OMP_WAIT_POLICY ?= passive
export NO_ET := 1
export NIPYPE_NO_ET := 1
# one thread in every process and some processes beside each other, each with whole files in the order of tests/conftest.py
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest
BESIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
BENCH_OUT ?= build/bench
BENCH_ARGS ?=
FULL_SIZE_ARGS ?=

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: ## the environment, with napari, nipype and test tools
	@sh scripts/install.sh all

install-core: ## the environment of the command line alone
	@sh scripts/install.sh core

kernels: install ## compile csrc/ again, into the package; only what has changed
	$(PY) setup.py build_ext --inplace

demo: install-core ## simulate a subject, decode, reconstruct; the page is demo_output/sub-01.html
	$(BIN)/neuraldiffuser demo demo_output

test: install ## everything that can break for a user; minutes
	$(PYTEST) -m "not slow" $(BESIDE)

test-slow: ## the rest: wheels, sanitizers, SLURM, real windows, kills, full-size models
	@sh scripts/install.sh test
	$(PYTEST) -m "slow and not serial" $(BESIDE)
	$(PYTEST) -m serial

test-gpu: install ## the tests that need a CUDA device
	@$(PY) scripts/require_gpu.py
	$(PY) -m pytest -m gpu

gpu-day: install ## on a machine with a GPU: tests, compute-sanitizer, demo, benchmarks; results in build/gpu-day
	@$(PY) scripts/require_gpu.py
	sh scripts/gpu_day.sh build/gpu-day

lint: install ## style, import rules, formatting, types, and what the docs name
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PY) scripts/check_docs.py

format: install ## sort imports, apply what ruff can fix, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## every script of benchmarks/, tables on stdout, rows in build/bench
	$(PY) scripts/run_benchmarks.py --out $(BENCH_OUT) $(BENCH_ARGS)

bench-gpu: install ## the same on a CUDA device
	@$(PY) scripts/require_gpu.py
	$(PY) scripts/run_benchmarks.py --out $(BENCH_OUT)-cuda --device cuda $(BENCH_ARGS)

full-size: ## a subject of NSD's size from simulation to napari: time and peak memory of every stage; half an hour
	@sh scripts/install.sh test
	$(PY) scripts/full_size.py $(FULL_SIZE_ARGS)

pictures: ## the pictures of the documentation
	@sh scripts/install.sh test
	$(PY) scripts/make_pictures.py

docs: install ## check that what README and docs name exists
	$(PY) scripts/check_docs.py

fuzz: install ## random bytes at the file readers
	$(PY) -m pytest -m fuzz

# left out: subprocess calls with fixed arguments (S603, S607), tokens of tokenizers taken for passwords (S106)
audit: install ## dependency consistency and security rules (no pickle, eval, exec, shell)
	$(PY) -m pip check
	$(BIN)/ruff check --select S --ignore S603,S607,S106 napari_neuraldiffuser nipype_interfaces scripts csrc setup.py

clean: ## remove build products; .venv and demo_output stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -f napari_neuraldiffuser/_kernels*.so napari_neuraldiffuser/_build_report.json .venv/.installed-*
