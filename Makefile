# make demo | make test | make lint | make bench: each sets up .venv by itself.
# make bench-peers: other frameworks to be measured against, in .venv-peers; make bench ARGS="--quick --write-readme".
# PYTHON: the interpreter that makes the environment (3.11 or later).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/ready
TESTS ?= tests src
JOBS ?= 2

# Isolated builds of packages do not see -c, only this variable.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Without a compiler there is no native part, and the rest works; with one, its errors must not be passed over in silence.
test bench: export RECURRA_NATIVE ?= $(if $(shell command -v c++ g++ clang++),1)

.PHONY: demo test lint format bench bench-peers sanitize clean

demo: $(STAMP)
	$(BIN)/recurra demo

# One thread a worker: workers that each start a pool as wide as the machine slow each other down many times over.
test: lint
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run $(ARGS)

# Their own environment, and without our pins: other packages of arrays must not be loaded beside torch.
bench-peers: .venv-peers/ready

.venv-peers/ready: $(wildcard benchmarks/peers/requirements-*.txt)
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	PIP_CONSTRAINT= .venv-peers/bin/python -m pip install $(foreach file,$^,-r $(file))
	touch $@

# Built in the environment itself, not in one of pip's that is gone afterwards, so that a change of one C++ file compiles
# that file alone.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/recurra/kernels/cpu/*.cpp src/recurra/kernels/cpu/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt scikit-build-core nanobind cmake ninja
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[all,dev]'
	touch $@

# The native machine's tests with every access and every integer checked: SANITIZE=thread looks for races instead.
# An environment of its own holds the package; what it depends on is that of .venv. Python itself is not instrumented, so
# the sanitizer's library has to be there before it starts; libstdc++ beside it, or it could not follow exceptions.
# A sanitizer writes past Python: --capture=sys lets it through. Races need two threads; and torch starts some in a forked
# child, of which the thread sanitizer would die.
SANITIZE ?= address,undefined
SANITIZE_TESTS ?= tests/kernels tests/engine/test_native.py tests/engine/test_conformance.py \
	-k "not test_conformance or native"
SANITIZED := .venv-sanitize
THREADS := $(findstring thread,$(SANITIZE))
comma := ,
library = $(shell c++ -print-file-name=$(1))

sanitize: $(STAMP)
	test -x $(SANITIZED)/bin/python || $(BIN)/python -m venv --without-pip $(SANITIZED)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(SANITIZED)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth
	RECURRA_NATIVE=1 $(SANITIZED)/bin/python -m pip install --no-deps --no-build-isolation --ignore-installed . \
		-C install.strip=false -C cmake.define.RECURRA_SANITIZE=$(SANITIZE) \
		-C build-dir=build/sanitize-$(firstword $(subst $(comma), ,$(SANITIZE)))
	LD_PRELOAD="$(call library,$(if $(THREADS),libtsan.so,libasan.so)) $(call library,libstdc++.so.6)" \
		ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=$(if $(THREADS),2,1) \
		TSAN_OPTIONS="die_after_fork=0 suppressions=$(CURDIR)/tests/kernels/thread_sanitizer.txt" \
		$(SANITIZED)/bin/python -m pytest -p no:cacheprovider --capture=sys $(SANITIZE_TESTS)

clean:
	rm -rf .venv .venv-peers .venv-sanitize build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
