# `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help dashboard demo demo-fleet demo-workflow test check fix sim sim-long sim-big fuzz conformance bench bless run run3 doc docs-test book release dist deb
SHELL := /bin/bash

CARGO ?= cargo
# A node that `make run` and `make run3` start keeps its data here.
DATA ?= target/run
TARGET ?= $(or $(CARGO_TARGET_DIR),target)
# For the simulator: one seed, how many seeds, how many nodes.
SEED ?= 1
SEEDS ?= 2000
NODES ?=

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## Three nodes hash real files, one is killed half-way; says what was lost (nothing)
	$(CARGO) build --bin taskmesh --example demo
	$(CARGO) run --quiet --example demo

# STAY=1: shows where everything is, and waits for Ctrl-C.
demo-fleet: ## Three nodes, a real Prometheus, the dashboard in Chromium; one node is killed (STAY=1: stays up to look at)
	$(CARGO) build --bin taskmesh
	STAY=$(STAY) .ci/demo-fleet $(TARGET)/debug/taskmesh $(TARGET)/demo-fleet

demo-workflow: ## A map-reduce as a workflow: words of all sources of the Cargo registry, counted on three nodes
	$(CARGO) build --bin taskmesh --example demo-workflow
	$(CARGO) run --quiet --example demo-workflow

test: ## All tests
	$(CARGO) test --workspace --no-fail-fast

check: ## Format, clippy, tidy, docs, licences: whatever must hold before a merge
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --test tidy
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	else echo "skipped: cargo deny check (cargo-deny is not installed: cargo install cargo-deny)"; fi

fix: ## Format, and let clippy mend what it can
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

SIM := $(CARGO) test -p taskmesh-core --test sim -- --nocapture --exact

sim: ## Simulate one seed: make sim SEED=7 NODES=15 (SIM_TRACE=1 SIM_TASK=id shows what happens)
	SIM_SEED=$(SEED) $(if $(NODES),SIM_NODES=$(NODES)) $(SIM) one_seed_keeps_every_promise

sim-long: ## Simulate many seeds and print the table: make sim-long SEEDS=2000
	SIM_SEEDS=$(SEEDS) $(if $(NODES),SIM_NODES=$(NODES)) $(SIM) many_seeds_keep_every_promise

sim-big: ## Simulate one large mesh: make sim-big NODES=300
	SIM_SEED=$(SEED) SIM_BIG_NODES=$(or $(NODES),300) $(SIM) a_big_mesh_keeps_every_promise

# Seconds for each target.
FUZZ_S ?= 30
fuzz: ## Fuzz every reader of bytes from outside, FUZZ_S=30 seconds each
	.ci/fuzz $(FUZZ_S)

# A build of the same crate with another feature: nothing else is compiled anew.
conformance: ## The official MCP conformance suite, both requirement sets (npm brings Node and the suite)
	$(CARGO) build --example conformance --features conformance
	.ci/conformance $(TARGET)/debug/examples/conformance $(TARGET)/conformance

dashboard: ## Check and bundle the page that nodes serve: dashboard/src to dashboard/dist (needs Node 20 and npm)
	cd dashboard && npm ci --loglevel error && npx tsc && node build.mjs

bench: ## All benchmarks (release build; a quiet machine gives better figures)
	$(CARGO) bench --workspace

bless: ## Rewrite the snapshots (docs/metrics.md, the CLI reference, …), then read the diff
	BLESS=1 $(CARGO) test --workspace
	@git --no-pager diff --stat

run: ## One node on this machine, data in target/run/node1
	$(CARGO) run -- up --data-dir $(DATA)/node1

run3: ## Three nodes on this machine; Ctrl-C drains and stops them
	$(CARGO) build --bin taskmesh
	@.ci/run3 $(DATA)

docs-test: ## Run the commands of README.md and the book against real nodes: make docs-test PAGES=docs/tasks.md
	$(CARGO) build --bin taskmesh
	python3 tests/docs/run.py $(TARGET)/debug/taskmesh $(PAGES)

book: ## The book as pages for a browser, in target/book/html (builds mdbook if it is not there)
	.ci/book $(TARGET)/book $(TARGET)/tools

doc: ## The documentation of the code, opened in a browser
	$(CARGO) doc --workspace --no-deps --open

release:
	CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_STRIP=symbols \
	  $(CARGO) build --release --locked --bin taskmesh

dist: release ## A tarball with a small, optimised binary, man pages and all of deploy/, in target/dist
	deploy/tarball $(TARGET)/release/taskmesh $(TARGET)/dist

deb: release ## A Debian package in target/debian (needs cargo-deb: cargo install cargo-deb)
	deploy/stage $(TARGET)/release/taskmesh target/stage
	$(CARGO) deb --no-build
