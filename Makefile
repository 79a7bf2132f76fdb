# What CI calls and what you call. Each target first makes the virtual environment it needs from a hash-locked list of packages; uv does
# it where uv is on the PATH, else python3 with its own pip.

PYTHON ?= python3
ARGS   ?=

UV     := $(shell command -v uv 2>/dev/null)
VENV   := .venv
DEMO   := .venv-demo
SPARK  := .venv-spark
RUN    := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help demo check test test-stack test-faults test-release bench bench-flat bench-fold bench-hops bench-recovery bench-verify stack stack-down lock bench-training bench-lookup bench-explain

help: ## Say what there is
	@echo "make ...       (ARGS='...' is handed on to the command)"
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

demo: $(DEMO)/ready ## Replay a year of real flights through the engine, in one process; no server, no network
	PYTHONPATH=services $(DEMO)/bin/python -m headrace demo $(ARGS)

check: $(VENV)/ready ## Lint, format, types, import contracts
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports --no-logo

# Without Maven or Java the tests that need Kafka are skipped, visibly; with CI=true that is a failure.
test: $(VENV)/ready ## All tests but the long ones, on a real Kafka and a real Redis of their own
	$(RUN) headrace stack fetch || test "$$CI" != true
	$(RUN) pytest -n 2 --dist worksteal -m "not stack and not faults and not release and not bench" $(ARGS)

test-stack: $(VENV)/ready $(SPARK)/ready ## The tests of a whole stack: its commands, its security, engines beside it; CI runs them too
	$(RUN) headrace stack fetch || test "$$CI" != true
	$(RUN) pytest -n 2 --dist worksteal -m "stack and not faults and not release" $(ARGS)

test-faults: $(VENV)/ready ## The long tests: servers and processes killed, paused, rolled back; one after another
	$(RUN) headrace stack fetch
	$(RUN) pytest -m "(faults or campaign) and not release" --fault-report=build $(ARGS)

test-release: $(VENV)/ready ## What is done before a release: the longest repeats, ten minutes of fuzzing
	$(RUN) headrace stack fetch
	$(RUN) pytest -m release $(ARGS)
	$(RUN) pytest tests/fuzz -m faults --fuzz-seconds=600 $(ARGS)

bench: $(VENV)/ready ## Measure against the raw client loops, in one run; writes build/bench.json
	$(RUN) headrace stack fetch
	PYTHONPATH=. $(RUN) tests.bench $(ARGS)

bench-fold: $(VENV)/ready ## Measure what a feature costs, by kind, number of entities and window; no server
	PYTHONPATH=. $(RUN) tests.bench.fold $(ARGS)

bench-lookup: $(VENV)/ready ## Measure look-ups beside Feast's, on one Redis; writes build/lookup.json
	PYTHONPATH=. $(RUN) tests.bench.lookup $(ARGS)

bench-flat: $(VENV)/ready ## Measure whether many cards and long windows cost more; writes build/flatness.json
	$(RUN) headrace stack fetch
	PYTHONPATH=. $(RUN) tests.bench.flatness $(ARGS)

bench-hops: $(VENV)/ready ## Measure what a stage more costs, in throughput and in delay; writes build/hops.json
	$(RUN) headrace stack fetch
	PYTHONPATH=. $(RUN) tests.bench.hops $(ARGS)

bench-recovery: $(VENV)/ready ## Measure how long a death is felt and how fast state comes back; writes build/recovery.json
	$(RUN) headrace stack fetch
	PYTHONPATH=. $(RUN) tests.bench.recovery $(ARGS)

bench-verify: $(VENV)/ready ## Measure `headrace verify` over a million events
	$(RUN) headrace stack fetch
	PYTHONPATH=. $(RUN) tests.bench.verification $(ARGS)

bench-explain: $(VENV)/ready ## Measure what contributions cost a row, by kind of model; no server; writes build/explain.json
	PYTHONPATH=. $(RUN) tests.bench.explain $(ARGS)

bench-training: $(VENV)/ready ## Measure the training set of a year of flights; writes build/training.json
	PYTHONPATH=. $(RUN) tests.bench.training $(ARGS)

stack: $(VENV)/ready ## Start a real Kafka and a real Redis here, without Docker
	$(RUN) headrace stack up $(ARGS)

stack-down: $(VENV)/ready ## End them and remove their state
	$(RUN) headrace stack down $(ARGS)

COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

lock: ## Choose the newest packages that pyproject.toml allows, and write deploy/requirements*.txt anew (needs uv)
	$(COMPILE) --upgrade pyproject.toml --extra dev --extra demo --output-file deploy/requirements-dev.txt
	$(COMPILE) --upgrade deploy/requirements-build.in --output-file deploy/requirements-build.txt
	$(COMPILE) pyproject.toml --constraint deploy/requirements-dev.txt --output-file deploy/requirements.txt
	$(COMPILE) deploy/requirements-demo.in --overrides deploy/requirements-demo.overrides --constraint deploy/requirements-dev.txt \
	  --output-file deploy/requirements-demo.txt
	@mkdir -p build && sed -n '/^pandas==/d; /^[a-z].*==/s/ *\\$$//p' deploy/requirements-dev.txt > build/tested-but-pandas.txt
	$(COMPILE) pyproject.toml --extra spark --constraint build/tested-but-pandas.txt --output-file deploy/requirements-spark.txt

# ------------------------------------------------------------------------------------------------------------ environments

ifdef UV
make_venv = uv venv --quiet --clear --python $(PYTHON) $(1)
install   = uv pip install --quiet --python $(1)/bin/python --no-deps
uninstall = uv pip uninstall --quiet --python $(1)/bin/python
else
make_venv = $(PYTHON) -m venv --clear $(1)
install   = $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --use-pep517
uninstall = $(1)/bin/python -m pip uninstall --quiet --yes
endif

new_enough = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headrace needs Python 3.11 or newer; name one: make PYTHON=python3.11 ...")'

# What builds packages is locked as well, and put in first, so that nothing is fetched that no hash vouches for.
define fill
@$(new_enough)
@echo "making $(1) from $(2)"
@$(call make_venv,$(1))
@$(call install,$(1)) --require-hashes -r deploy/requirements-build.txt
@$(call install,$(1)) --require-hashes --no-build-isolation -r $(2)
endef

$(VENV)/ready: deploy/requirements-dev.txt deploy/requirements-build.txt pyproject.toml
	$(call fill,$(VENV),$<)
	@$(call install,$(VENV)) --no-build-isolation --editable .
	@touch $@

$(DEMO)/ready: deploy/requirements-demo.txt deploy/requirements-build.txt
	$(call fill,$(DEMO),$<)
	@$(call uninstall,$(DEMO)) setuptools
	@touch $@

# PySpark takes an older pandas than the tests do.
$(SPARK)/ready: deploy/requirements-spark.txt deploy/requirements-build.txt
	$(call fill,$(SPARK),$<)
	@touch $@
