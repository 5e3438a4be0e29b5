# Two commands do everything: `make demo` shows it, `make test` checks it. Both install what is missing, as root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: demo test unit end-to-end sim mutants chaos bench-store build install fmt lint clean help

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: install ## Make a three-node cluster on this machine, run a shop on it, kill the leader's host
	@tools/demo

test: install ## Everything that must hold
	@$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory end-to-end

unit: install ## The tests of every crate
	@tools/engine
	tools/build >/dev/null
	if [ -e /var/lib/quorate-dev ]; then
	  echo "The cluster that make demo left is removed: the tests make their own on the same addresses" >&2
	  "$$(tools/build)" dev down
	fi
	. tools/env
	cargo test --workspace --no-fail-fast

SEEDS ?= 1..200
sim: install ## Simulated runs with SEEDS=1..200, or as many as you like
	@. tools/env
	export SEEDS="$(SEEDS)"
	cargo test -p quorate-tests --test invented --test store_sim --no-fail-fast -- whatever

mutants: install ## Stores with known bugs, each of which the simulation must notice
	@. tools/env
	cargo test -p quorate-tests --features mutants --test mutants -- --nocapture

MINUTES ?= 5
SEED ?= 1
chaos: install ## Faults of real processes on real disks, for MINUTES=5, chosen by SEED=1
	@tools/install chaos
	$(if $(ETCD),tools/install etcd)
	tools/chaos --minutes $(MINUTES) --seed $(SEED) $(if $(ONLY),--only $(ONLY)) $(if $(ETCD),--etcd)

bench-store: install ## The store against Debian's etcd, in one run: at most 40 minutes, QUICK=1 at most 5
	@tools/install etcd
	tools/bench-store $(if $(QUICK),--quick)

end-to-end: install ## The demo's claims, on three real hosts with real Docker Engines
	@if [ "$$(id -u)" != 0 ]; then
	  echo "error: the end-to-end test did not run" >&2
	  echo "  because: it makes network namespaces and Docker Engines, which only root may" >&2
	  echo "  hint: run make test as root" >&2
	  exit 1
	fi
	tools/demo --down

build: install ## The quorate binary
	@tools/build

install: ## What the machine lacks
	@tools/install

fmt: ## Format the code
	@cargo fmt --all

lint: install ## Formatting and clippy
	@. tools/env
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

clean: ## Remove what was compiled; RocksDB stays
	@. tools/env
	cargo clean
