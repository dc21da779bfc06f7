# The whole project is driven from here; CI runs the very same targets.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
MAR := model_artifacts/model.mar
WORKERS ?= 2
# Each folder alone: pytest puts it on the path, and tests/handler must not hide the package handler.
# Not clean yet: those of tests/* that are not named here.
TYPED := tests tests/archive tests/cli tests/containers tests/rules tests/shapes tests/engine tests/handler

.PHONY: help env demo test soak lint format build serve bench rehearse clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

env: $(STAMP)  ## the environment in .venv, as constraints.txt pins it

$(STAMP): setup.cfg pyproject.toml constraints.txt scripts/make_env.sh
	@PYTHON="$(PYTHON)" sh scripts/make_env.sh $(VENV)
	@touch $@

demo: $(STAMP)  ## build, serve, draw eight pictures, check them, stop; writes out/demo.png
	$(VENV)/bin/marquee demo

test: $(STAMP)  ## every test, in two processes (TESTS=tests/handler for a part, WORKERS=0 for one process)
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS) $(TESTS)

soak: $(STAMP)  ## the long tests, and the random tests at full length (docs/soak.md)
	$(VENV)/bin/python -m pytest --timeout 7200 --soak --interleavings 1000 --fuzzed 3000 -rP \
	    -k "random_interleavings or hostile_requests_harm_nobody or ten_random_moments or test_compiled_archive or every_caption" \
	    tests/shapes tests/engine tests/serving tests/deploy

lint: $(STAMP)  ## ruff, formatting and mypy strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	for folder in $(TYPED); do MYPYPATH=tests:tests/deploy $(VENV)/bin/mypy --python-version 3.11 \
	    --follow-imports silent --untyped-calls-exclude google --untyped-calls-exclude grpc \
	    $$folder/*.py || exit 1; done

format: $(STAMP)  ## let ruff write what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

build: $(STAMP)  ## write model_artifacts/model.mar
	$(VENV)/bin/marquee build

serve: build  ## build it and serve it until Ctrl-C
	$(VENV)/bin/marquee serve

bench: $(STAMP)  ## every ratio of docs/benchmarks.md (ARGS=--quick, ARGS=--gpu)
	$(VENV)/bin/python -m benchmarks.run $(ARGS)

rehearse: $(STAMP)  ## serve the archive in the prebuilt container's Python 3.9 (large download; PYTHON39=PATH)
	$(VENV)/bin/marquee rehearse --report docs/prebuilt-rehearsal.md $(ARGS)

clean:  ## remove what was built, keep the environment
	rm -rf out build $(MAR)
