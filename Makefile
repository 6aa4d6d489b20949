# Everything runs from .venv, which the first target that needs it makes; after that no target needs a network.
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2
READY := $(VENV)/.ready

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help up demo down status test check format bench bench-full faults model soak overload fuzz mutations compose-test sbom audit-dependencies lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@set -e; python=$$(scripts/find-python); \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "making $(VENV) with $$python (once, some minutes)"; rm -rf $(VENV); $$python -m venv $(VENV); \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $(READY)

up: $(READY) ## run it all: servers, a reference API with traffic, aggregator, exporter (Ctrl-C stops)
	@exec $(BIN)/streamgauge up $(ARGS)

demo: $(READY) ## the same with a schema and a load that are ill on purpose: findings and alerts to look at
	@exec $(BIN)/streamgauge up --demo $(ARGS)

down: $(READY) ## stop what `make up` started
	@$(BIN)/streamgauge down

status: $(READY) ## show what runs
	@$(BIN)/streamgauge status

test: $(READY) ## run the tests, in random order, on real servers
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

faults: $(READY) ## run the tests that kill and cut, and `make model`; MINUTES=m or SEED=n: a seeded schedule of faults under load
	@if [ -n "$(MINUTES)$(SEED)" ]; then \
		$(BIN)/python -m tests.faults.nemesis $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)); \
	else $(BIN)/python -m pytest -m faults && $(MAKE) --no-print-directory model; fi

model: $(READY) ## search for a schedule of faults that breaks a promise, on simulated servers: SCHEDULES=n SEED=n
	@$(BIN)/python -m tests.model --schedules $(or $(SCHEDULES),100200) $(if $(SEED),--seed $(SEED))

soak: $(READY) ## hold 80 % of what can be drained for MINUTES (30) with a fault a minute [SEED=n]; into docs/reliability.md
	@$(BIN)/python -m tests.load.soak --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

overload: $(READY) ## emit three times what can be drained for MINUTES (5) while an API is loaded; into docs/reliability.md
	@$(BIN)/python -m tests.load.overload --minutes $(or $(MINUTES),5)

fuzz: $(READY) ## fuzz batches, series keys, /metrics and HTTP, EXAMPLES each (minutes; the suite tries a few)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest -n 2 --timeout 3600 tests/fuzz

mutations: $(READY) ## take one mechanism away at a time and see its test turn red (minutes)
	@$(BIN)/python scripts/mutations.py

compose-test: $(READY) ## bring docker-compose.scale.yml up whole and break parts of it (root, Debian, minutes)
	@$(BIN)/python -m tests.compose

check: $(READY) ## lint, format and types, as CI does
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh scripts/validate-hardening redis/*.sh database/*.sh nginx/ssl/*.sh tests/compose/standins/*.sh; \
	else echo "SHELLCHECK IS NOT INSTALLED: SHELL SCRIPTS ARE NOT CHECKED (CI does)" >&2; fi

format: $(READY) ## rewrite the sources in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY) ## print each number beside its goal and its peer (minutes)
	@$(BIN)/python -m benchmarks

bench-full: $(READY) ## the same with full sizes (long)
	@$(BIN)/python -m benchmarks --full

LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-header --no-emit-index-url --no-emit-find-links --quiet --upgrade

sbom: $(READY) ## list what is shipped in dist/sbom.cdx.json (CycloneDX): versions, hashes, licences
	@$(BIN)/python scripts/sbom.py

audit-dependencies: $(READY) ## ask for known advisories against what is shipped (needs the network)
	@scripts/audit-dependencies.sh

lock: $(READY) ## resolve requirements.lock, services.lock and build.lock anew (needs the network)
	@$(LOCK) pyproject.toml --extra dev -o requirements.lock
	@$(LOCK) pyproject.toml --extra services -c requirements.lock -o services.lock
	@echo 'hatchling>=1.27' | $(LOCK) - -c requirements.lock -o build.lock

clean: ## remove the environment, caches and builds; data under .streamgauge stays
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
