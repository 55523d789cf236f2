# From a fresh clone: `make demo`. Needs make and Python 3.11 or newer, and nothing else.
#
#   PYTHON  which Python to make .venv with (default: python3)
#   VENV    where that is (default: .venv)
#   JOBS    how many tests run at once (default: 3; most of a test is waiting)
#   ARGS    passed on: make demo ARGS="--kill 3", make test ARGS=tests/round
#   RABBITMQ4  where `make test-rabbitmq4` keeps its RabbitMQ (default: .rabbitmq4)
#   TORCH   which PyTorch `make test-torch` installs, if there is none (default: torch==2.13.0)
#   SEED, RUNS, SITES, ROUNDS  of the long tests: make chaos SEED=7 RUNS=30, make soak ROUNDS=500
#   SEED, INPUTS  of make fuzz

PYTHON ?= python3
VENV ?= .venv
RABBITMQ4 ?= .rabbitmq4
ARGS ?=
JOBS ?= 3
TORCH ?= torch==2.13.0
SEED ?= 1
RUNS ?= 10
SITES ?= 5
ROUNDS ?= 2000
INPUTS ?= 1000000

RUN := $(VENV)/bin/python -m
# Neighbours share a worker, and so what is started once for a file, until a worker has no more to do.
PYTEST := $(RUN) pytest --numprocesses=$(JOBS) --dist=worksteal
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev

.PHONY: help demo demo-sites demo-in-memory test test-rabbitmq4 test-torch lint format bench chaos bits soak fuzz screenshots broker docs protos round wheel clean

help: ## Say what there is to make
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1	/p' Makefile | awk -F'\t' '{printf "make %-15s %s\n", $$1, $$2}'

demo: $(DEMO) ## Train on handwritten digits over RabbitMQ, with real processes
	@sh scripts/see-to-broker.sh $(VENV) $(ARGS)
	@$(RUN) flmq demo $(ARGS)

demo-sites: $(DEMO) ## The same over three sites, a broker each, of which one is cut off on the way
	@sh scripts/see-to-broker.sh $(VENV)
	@$(RUN) flmq demo-sites $(ARGS)

demo-in-memory: $(DEMO) ## The same in one process, simulated, without RabbitMQ
	@$(RUN) flmq demo --in-memory $(ARGS)

test: $(DEV) ## Run the test suite, real RabbitMQ included
	@sh scripts/see-to-broker.sh $(VENV) || echo "make: the tests that need a broker will fail" >&2
	@sh scripts/install-chromium.sh || echo "make: the tests that look at pages will fail" >&2
	@$(PYTEST) $(ARGS)

test-rabbitmq4: $(DEV) ## Run what meets a broker on RabbitMQ 4 (root; Debian or Ubuntu)
	@sh scripts/rabbitmq4.sh $(RABBITMQ4)
	@PATH="$(abspath $(RABBITMQ4))/sbin:$$PATH" \
	    FLMQ_RABBITMQ_SERVER="$(abspath $(RABBITMQ4))/sbin/rabbitmq-server" \
	    $(PYTEST) tests/transport tests/dataplane tests/end_to_end tests/chaos \
	    tests/sites tests/provision tests/security tests/certs $(ARGS)

test-torch: $(DEV) ## Run what needs PyTorch, and install it first if there is none
	@$(VENV)/bin/python -c 'import torch' 2>/dev/null || \
	    { echo "make: installing $(TORCH)" && $(RUN) pip install --quiet $(TORCH); }
	@sh scripts/see-to-broker.sh $(VENV)
	@$(RUN) pytest -m torch tests/torch tests/examples $(ARGS)

lint: $(DEV) ## Check style, types and the directions of imports
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(VENV)/bin/lint-imports --no-logo

format: $(DEV) ## Put the code into the house's style
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

bench: $(DEV) ## Measure, in some twenty minutes; ARGS=--help says what there is to choose
	@sh scripts/see-to-broker.sh $(VENV) $(ARGS)
	@$(RUN) benchmarks $(ARGS)

chaos: $(DEV) ## Kill and cut RUNS=10 runs and SITES=5 over sites, drawn from SEED=1 on: the same bits
	@sh scripts/see-to-broker.sh $(VENV)
	@$(RUN) pytest -m slow tests/chaos tests/sites tests/end_to_end tests/journal tests/security tests/cli/test_demo_sites.py tests/docs tests/fuzz tests/ui
	@$(RUN) benchmarks.chaos --seed $(SEED) --runs $(RUNS) --sites $(SITES) $(ARGS)

bits: $(DEV) ## Play one job flat and over trees of sites, links cut and aggregators killed: print its bits
	@sh scripts/see-to-broker.sh $(VENV)
	@$(RUN) benchmarks.bits $(ARGS)

soak: $(DEV) ## Run ROUNDS=2000 rounds, and see that nothing grows
	@sh scripts/see-to-broker.sh $(VENV)
	@$(RUN) benchmarks.soak --rounds $(ROUNDS) $(ARGS)

screenshots: $(DEV) ## Play a run with kills, and take docs/images/ui-*.png of each view of its page
	@sh scripts/see-to-broker.sh $(VENV)
	@sh scripts/install-chromium.sh
	@$(VENV)/bin/python scripts/screenshots.py $(ARGS)

fuzz: $(DEV) ## Feed every decoder INPUTS=1000000 hostile inputs, drawn from SEED=1
	@$(RUN) tests.fuzz --seed $(SEED) --inputs $(INPUTS) $(ARGS)

broker: $(DEMO) ## Start a RabbitMQ node of your own; `.venv/bin/flmq broker down` stops it
	@sh scripts/see-to-broker.sh $(VENV)
	@$(RUN) flmq broker up $(ARGS)

docs: $(DEV) ## Build the documentation as a site, into site/
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --quiet --strict
	@echo "make: built site/; read it by: $(RUN) http.server --bind 127.0.0.1 --directory site"

protos: $(DEV) ## Generate flmq/wire/proto from schemas/
	@$(VENV)/bin/python scripts/generate_protos.py

round: $(DEV) ## Draw the round's state machine into docs/architecture.md
	@$(VENV)/bin/python scripts/draw_round.py

wheel: $(DEV) ## Build dist/*.whl, and try it where the source is not
	@sh scripts/check-wheel.sh $(VENV)

clean: ## Remove what make made; runs/ stays
	@rm -rf $(VENV) dist build site *.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp an extra: installed again when pyproject.toml or the script changes, and only then.
$(VENV)/.installed-%: pyproject.toml scripts/install-flmq.sh
	@sh scripts/install-flmq.sh '$(PYTHON)' '$(VENV)' $*
