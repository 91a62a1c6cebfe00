# The front door: `make` lists what it can do. Nothing has to be prepared but Python 3.10 or newer; what else is missing is installed with
# apt-get as root on Debian and Ubuntu, and named with the command that installs it elsewhere.
#
#   make test ARGS="-k purge -x"        further arguments for pytest, the benchmarks or the demo
#   make PYTHON=python3.13 VENV=.venv313 test
#   KAFKA_EXT_DEBUG=1 make build        the settings of setup.py and wheels/librdkafka.py, from the environment

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
comma := ,

py := $(VENV)/bin/python
pip := $(py) -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- building ---

.PHONY: librdkafka
librdkafka:  ## the pinned librdkafka, static, in build/librdkafka
	@$(PYTHON) wheels/needs.py
	@$(PYTHON) wheels/librdkafka.py

.PHONY: build develop
build: $(VENV)/.package  ## the extension in place, in a virtual environment (.venv) of its own
	@$(py) setup.py --quiet build_ext --inplace

develop: build

$(VENV)/.created: wheels/needs.py
	@$(PYTHON) wheels/needs.py
	$(PYTHON) -m venv $(VENV)
	$(pip) install "setuptools>=77" "Cython>=3.1"
	@touch $@

# The editable install is for the entry points and the extras; it is only made again when the metadata changes.
$(VENV)/.package: $(VENV)/.created pyproject.toml
	@# First and by itself, since it takes longest and pip would hide that it is at work.
	@if [ "$${KAFKA_EXT_LIBRDKAFKA:-bundled}" = bundled ]; then $(py) wheels/librdkafka.py; fi
	$(pip) install --no-build-isolation --editable ".[cli]"
	@touch $@

$(VENV)/.extra-%: $(VENV)/.package
	$(py) wheels/extra.py $* > $(VENV)/extra-$*.txt
	$(pip) install -r $(VENV)/extra-$*.txt
	@touch $@

# --- a developer's day ---

# How many tests run at a time. Most of them wait for a broker, so two for each processor. They are handed out one by one, the longest
# first (tests/conftest.py), so that all processes end together.
JOBS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
pytest = $(py) -m pytest -n $(JOBS) --dist load --maxschedchunk 1

.PHONY: demo
demo: build  ## a million real records through an embedded broker, read back and verified
	$(py) examples/demo.py $(ARGS)

.PHONY: test test-slow test-all
test: $(VENV)/.extra-test build  ## the tests of everything that is not slow, in about five minutes on two cores
	$(pytest) -m "not slow" tests/unit tests/embedded $(ARGS)

test-slow: $(VENV)/.extra-test build  ## the rest: what waits for real timeouts, what looks at random, what watches memory
	$(pytest) -m slow tests/unit tests/embedded tests/memory $(ARGS)

test-all: $(VENV)/.extra-test build  ## both
	$(pytest) tests/unit tests/embedded tests/memory $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.extra-test build  ## which lines of Python the suite runs, in build/coverage
	@# Without what watches memory: the coverage tool's own data would count as a leak.
	$(pytest) --cov=kafka_ext --cov-report=term:skip-covered --cov-report=html:build/coverage tests/unit tests/embedded $(ARGS)

.PHONY: test-engines
test-engines: $(VENV)/.extra-engines build  ## KafkaSink on local clusters of Dask, Ray and Spark (heavy, and Spark needs Java 17)
	$(py) -m pytest --timeout 600 tests/engines $(ARGS)

.PHONY: test-cluster
test-cluster: $(VENV)/.extra-test build  ## the tests that need real Apache Kafka: Java 17 and Maven; a few minutes
	@$(PYTHON) wheels/needs.py kafka
	@$(py) -m kafka_ext.testing.cluster_artifacts
	$(py) -m pytest tests/cluster $(ARGS)

.PHONY: chaos
chaos: $(VENV)/.extra-test $(VENV)/.extra-bench build  ## the fault campaign on real Apache Kafka, a quarter of an hour (ARGS=--short: two minutes)
	@$(PYTHON) wheels/needs.py kafka
	@$(py) -m kafka_ext.testing.cluster_artifacts
	$(py) -m tests.chaos $(ARGS)

.PHONY: needs
needs: $(addprefix $(VENV)/.extra-,bench docs lint test wheel)  ## what .ci/run needs, and nothing done with it yet
	@$(PYTHON) wheels/needs.py kafka
	@$(PYTHON) wheels/needs.py wheel
	@$(py) -m kafka_ext.testing.cluster_artifacts

.PHONY: fuzz
fuzz: $(VENV)/.extra-test build  ## random calls with random arguments, read back and compared; ten minutes (ARGS="--minutes 60 --kafka")
	$(py) -m tests.fuzz $(ARGS)

.PHONY: soak
soak: $(VENV)/.extra-test $(VENV)/.extra-bench build  ## a long run, watched for growth (ARGS="--minutes 30")
	$(py) -m tests.soak $(ARGS)

PART ?= all

.PHONY: sanitize
sanitize: $(VENV)/.extra-test  ## the suite under sanitizers; a part of it: PART=asan, tsan, valgrind, oom or ci
	$(py) tests/memory/sanitize.py $(PART) $(ARGS)

.PHONY: lint
lint: $(VENV)/.extra-lint  ## ruff, cython-lint, and zizmor for the workflows
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PATH="$(abspath $(VENV))/bin:$$PATH" cython-lint kafka_ext include
	$(VENV)/bin/zizmor --offline --quiet .github

.PHONY: format
format: $(VENV)/.extra-lint  ## let ruff lay out the code and sort the imports
	$(VENV)/bin/ruff check --select I --fix .
	$(VENV)/bin/ruff format .

.PHONY: types
types: $(VENV)/.extra-lint build  ## mypy --strict, and the stubs held against the built module
	$(py) -m mypy
	$(py) -m mypy.stubtest --mypy-config-file pyproject.toml kafka_ext $(ARGS)

.PHONY: docs
docs: $(VENV)/.extra-docs build  ## the documentation, in docs/_build/html; a warning is an error
	$(py) -m sphinx -W --keep-going -b html docs docs/_build/html

.PHONY: bench bench-latency
bench: $(VENV)/.extra-bench build  ## the benchmarks, beside other clients and a C baseline
	$(py) -m benchmarks $(ARGS)

bench-latency: $(VENV)/.extra-bench build  ## from send to callback, in percentiles, beside confluent-kafka and C (two minutes)
	$(py) -m benchmarks.latency $(ARGS)

# --- what others install ---

# A wheel brings OpenSSL, curl, zstd and zlib, from pinned sources (two minutes, once).
pinned := $(CURDIR)/build/librdkafka-pinned

.PHONY: wheel-libraries wheel
wheel-libraries: $(VENV)/.created
	@$(PYTHON) wheels/needs.py wheel
	KAFKA_EXT_LIBRARIES=pinned $(py) wheels/librdkafka.py

wheel: $(VENV)/.extra-wheel wheel-libraries  ## a wheel for this machine, in wheelhouse/: built from the sdist, repaired, and tested in an environment of its own
	rm -rf dist wheelhouse
	@# Without a path to it, build makes the sdist and then the wheel from the sdist: what is missing there is found here.
	KAFKA_EXT_LIBRDKAFKA=$(pinned) $(py) -m build --outdir dist
	PATH="$(abspath $(VENV))/bin:$$PATH" $(py) wheels/repair.py --prefix $(pinned) dist/*.whl wheelhouse
	$(py) wheels/matrix.py --check
	$(MAKE) test-wheel

# "all": a test that cannot be done fails. Empty, for interpreters that others have no wheels for: it is skipped.
KAFKA_EXT_WHEEL_TESTS ?= all

tag = $$($(PYTHON) -c 'import sys; v = "cp%d%d" % sys.version_info[:2]; print(f"{v}-{v}{sys.abiflags}")')-*

.PHONY: test-wheel
test-wheel:  ## test the wheel in wheelhouse/ once more
	rm -rf build/wheel-test
	$(PYTHON) -m venv build/wheel-test
	build/wheel-test/bin/python -m pip --disable-pip-version-check --quiet install \
	    "$$(echo wheelhouse/*-$(tag).whl)[wheel-test$(if $(KAFKA_EXT_WHEEL_TESTS),$(comma)wheel-neighbours)]"
	cd build/wheel-test && KAFKA_EXT_WHEEL_TESTS=$(KAFKA_EXT_WHEEL_TESTS) bin/pytest -p no:cacheprovider -rs $(CURDIR)/wheels/test_wheel.py $(ARGS)

.PHONY: test-wheel-root
ROOTS ?= bookworm trixie
test-wheel-root: $(VENV)/.extra-wheel  ## as root: the whole suite against the wheel in minimal Debians (ROOTS="bookworm trixie"), some minutes each
	PATH="$(abspath $(VENV))/bin:$$PATH"; for suite in $(ROOTS); do $(py) wheels/root.py $$suite -- $(ARGS) || exit 1; done

.PHONY: wheel-cross
MACHINE ?= aarch64
wheel-cross: sdist  ## as root, on Debian: a wheel for another processor (MACHINE=aarch64), compiled here and tested under emulation
	PATH="$(abspath $(VENV))/bin:$$PATH" $(py) wheels/cross.py $(MACHINE)

.PHONY: requirements
requirements: $(VENV)/.created  ## pin anew, by hash, what published wheels are built with
	$(pip) install uv
	cd wheels/requirements && for name in build tools test; do \
	    $(abspath $(VENV))/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --upgrade \
	        --no-header --no-annotate $$name.in -o $$name.txt || exit 1; done

.PHONY: sdist
sdist: $(VENV)/.extra-wheel  ## the source distribution, in dist/
	@# Alone there: what takes it from there takes the only one.
	rm -f dist/kafka_ext-*.tar.gz
	$(py) -m build --sdist

.PHONY: test-sdist
test-sdist: $(VENV)/.extra-wheel $(VENV)/.extra-wheel-test  ## that it holds what git has, and builds without a network
	$(VENV)/bin/pytest -p no:cacheprovider wheels/test_sdist.py $(ARGS)

.PHONY: clean
clean:  ## remove what was built, but not librdkafka and the virtual environment
	rm -rf build/bdist.* build/cython build/lib.* build/temp.* build/extension-options.txt dist wheelhouse docs/_build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage kafka_ext.egg-info
	rm -f kafka_ext/_rdkafka.*.so $(VENV)/.package
	find kafka_ext tests benchmarks examples wheels -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean  ## remove everything that is not in git
	rm -rf build $(VENV)
