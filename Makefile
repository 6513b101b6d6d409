# sluicegate: `make help` lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

URL ?= http://127.0.0.1:8080/api/events
CONNECTIONS ?= 64
SECONDS_EACH ?= 60
DURATION ?= 10s
REQUESTS ?= 20000
SEEDS ?= 100000
FIRST_SEED ?= 0
BODY ?= bench/corpus/events-30.ndjson
ROUNDS ?= 50
TABLE ?= null
RECORD ?= target/bench-record
QUICK ?=
BENCH = BENCH_RECORD=$(RECORD) cargo bench --locked --bench
BENCH_ARGUMENTS = $(if $(QUICK),-- --quick)
OHA_VERSION := 1.16.0

# Most tests wait, for ClickHouse or for time to pass: so many at once keep the cores busy.
TEST_THREADS ?= $(shell echo $$(($$(nproc) + 6)))
TEST = RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked --no-fail-fast

# What the minimal build is held to, besides the tests of its parts.
MINIMAL_TESTS = a_build_without events:: framing:: lifecycle::

.PHONY: help build assets deb image clickhouse run test test-may crash-test check sim fuzz bench \
	bench-micro bench-attacks bench-features bench-tables bench-latency bench-scale bench-stages bench-insert bench-peers bench-gate bench-plot oha \
	load-wrk load-ab clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the release binary, target/release/sluicegate
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	cargo build --release --locked

# Tools, built once: two of `make deb`, and one that counts instructions, of the version of the crate `gungraun`.
TOOLS = target/tools/bin
CARGO_DEB_VERSION := 3.8.0
CARGO_CYCLONEDX_VERSION := 0.5.9
GUNGRAUN_VERSION := 0.20.0
INSTALL_TOOL = cargo install --quiet --locked --debug --root target/tools --target-dir target/tools/build

$(TOOLS)/cargo-deb $(TOOLS)/cargo-cyclonedx &:
	$(INSTALL_TOOL) cargo-deb --version $(CARGO_DEB_VERSION)
	$(INSTALL_TOOL) cargo-cyclonedx --version $(CARGO_CYCLONEDX_VERSION)
	rm -rf target/tools/build

$(TOOLS)/gungraun-runner:
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(INSTALL_TOOL) gungraun-runner --version $(GUNGRAUN_VERSION)
	rm -rf target/tools/build

deb: build assets $(TOOLS)/cargo-deb $(TOOLS)/cargo-cyclonedx ## the Debian package, its SBOM and checksums, in target/package
	@scripts/need.sh dpkg-shlibdeps "dpkg-shlibdeps is needed to make the package: install the package dpkg-dev" dpkg-dev
	@scripts/package

image: build ## the container image, in target/package
	@scripts/need.sh buildah "buildah is needed to make the image: install Debian's package buildah" buildah
	@scripts/image

assets: ## man pages and completions for bash, zsh and fish, in target/assets
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	cargo run --locked --quiet --example assets -- target/assets

clickhouse: ## fetch the embedded ClickHouse, once
	@scripts/fetch-clickhouse.sh

run: build clickhouse ## build and serve on port 8080, with an embedded ClickHouse on 8123
	target/release/sluicegate serve --embedded ./data/clickhouse

test: clickhouse ## every test, those against a real ClickHouse included
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	$(TEST)

test-may: clickhouse ## the tests of what both engines promise, through --engine may
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	$(TEST) --features engine-may --test end_to_end engine_may

crash-test: clickhouse ## kill server and ClickHouse under load: ROUNDS, CRASH_SEED
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	CRASH_ROUNDS=$(ROUNDS) cargo test --locked --test end_to_end crash:: -- --nocapture

check: clickhouse ## format, clippy with warnings denied, tests
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	@# First what takes a second: the other workspaces are checked with this one.
	cargo fmt --check
	cargo fmt --all --check --manifest-path bench/peers/Cargo.toml
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets --features engine-may -- -D warnings
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	$(TEST) --features engine-may
	$(TEST) --no-default-features --lib
	$(TEST) --no-default-features --test end_to_end -- $(MINIMAL_TESTS)

sim: ## lives of a spool on a faulty disk, held against what was promised: SEEDS, FIRST_SEED
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	CARGO_PROFILE_DEV_OPT_LEVEL=2 SIM_SEEDS=$(SEEDS) SIM_FIRST_SEED=$(FIRST_SEED) \
		cargo test --locked --lib what_was_acknowledged

fuzz: ## each fuzz target for SECONDS_EACH
	@scripts/fuzz.sh "$(SECONDS_EACH)"

bench: clickhouse oha ## every benchmark, and one table of it all: RECORD (a folder for the raw figures), QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) encoder $(BENCH_ARGUMENTS)
	$(BENCH) micro $(BENCH_ARGUMENTS)
	$(BENCH) server $(BENCH_ARGUMENTS)
	$(BENCH) memory $(BENCH_ARGUMENTS)
	$(BENCH) attacks $(BENCH_ARGUMENTS)
	$(BENCH) insert $(BENCH_ARGUMENTS)
	$(BENCH) scale $(BENCH_ARGUMENTS)
	$(BENCH) latency $(BENCH_ARGUMENTS)
	$(BENCH) peers $(BENCH_ARGUMENTS)
	$(BENCH) stages $(BENCH_ARGUMENTS)
	cargo bench --locked --bench report -- table $(RECORD)

bench-micro: ## each stage alone: head, chunks, codings, lines, encoder, frame, segment: RECORD, QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) micro $(BENCH_ARGUMENTS)

bench-latency: clickhouse oha ## latencies at fixed rates, for written, sync and ack=inserted: RECORD, QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) latency $(BENCH_ARGUMENTS)

bench-scale: clickhouse ## curves over connections, events a request, event sizes; the committer alone: RECORD, QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) scale $(BENCH_ARGUMENTS)

bench-attacks: clickhouse ## normal traffic beside each attack, and the same for a bare loop: RECORD, QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) attacks $(BENCH_ARGUMENTS)

bench-features: clickhouse ## what PROXY, TLS, request ids, keys and CORS cost beside plain: RECORD, QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) features $(BENCH_ARGUMENTS)

bench-tables: clickhouse ## what 5, 20 and 100 tables cost beside one: RECORD, QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) tables $(BENCH_ARGUMENTS)

bench-stages: clickhouse ## where the CPU time of a request goes, by perf
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) stages $(BENCH_ARGUMENTS)

bench-insert: clickhouse ## what an INSERT costs ClickHouse and the server, by format, compression and size
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	$(BENCH) insert $(BENCH_ARGUMENTS)

bench-peers: clickhouse ## the server beside others that do the same job, built here too: TABLE=null or mergetree, RECORD, QUICK=1
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	BENCH_TABLE=$(TABLE) $(BENCH) peers $(BENCH_ARGUMENTS)

bench-gate: $(TOOLS)/gungraun-runner ## the encoder's instructions, which must be so many times fewer than those of structs
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh valgrind "valgrind counts the instructions: install the package valgrind" valgrind
	GUNGRAUN_RUNNER=$(CURDIR)/$(TOOLS)/gungraun-runner cargo bench --locked --bench instructions -- --output-format=json \
		>target/instructions.json
	cargo bench --locked --bench report -- gate target/instructions.json

bench-plot: ## draw what is in RECORD, an SVG beside each file
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	cargo bench --locked --bench report -- draw $(RECORD)

# The load generator of bench-latency, built once; without it those latencies are skipped.
oha:
	@command -v oha >/dev/null || [ -x target/tools/bin/oha ] || \
		cargo install --locked --root target/tools oha --version $(OHA_VERSION) || true

load-wrk: ## send events with wrk: URL, CONNECTIONS, DURATION, BODY (a file, or random)
	@scripts/load-wrk.sh "$(URL)" "$(CONNECTIONS)" "$(DURATION)" "$(BODY)"

load-ab: ## send events with ab, with and without keep-alive: URL, CONNECTIONS, REQUESTS, BODY (a file, or random)
	@scripts/load-ab.sh "$(URL)" "$(CONNECTIONS)" "$(REQUESTS)" "$(BODY)"

clean: ## what was built; ./data stays
	cargo clean

# Other versions of ClickHouse, real replicas, and proxies: what needs more than Rust, npm, curl and strace.

# Versions beside the embedded one, and the modules of tests/end_to_end that they are held to.
VERSIONS ?= 25.8 26.3 26.9
VERSION_TESTS ?= commands crash damage disk duplicates events faults generated idempotency insert_format inserted ledger \
	lifecycle outcomes presence proxy quarantine replicas schema_change typed_paths
# Each version in a minute, and what needs several of them or ZooKeeper.
VERSION_QUICK_TESTS ?= events generated outcomes typed_paths

.PHONY: test-versions test-outside test-package test-image test-observability

test-versions: clickhouse ## the tests of every promise, against other versions of ClickHouse: VERSIONS, VERSION_TESTS
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	@failed=; for version in $(VERSIONS); do \
		CRASH_ROUNDS=$${CRASH_ROUNDS:-8} scripts/clickhouse-versions/test.sh $$version $(VERSION_TESTS) || failed="$$failed $$version"; \
	done; [ -z "$$failed" ] || { echo "Tests failed against ClickHouse$$failed." >&2; exit 1; }

test-package: clickhouse deb ## the Debian package: installed, upgraded, removed and purged in a booted Debian (needs root)
	@scripts/need.sh debootstrap "debootstrap is needed to make a clean Debian: install the package debootstrap" debootstrap
	@scripts/need.sh systemd-nspawn "systemd-nspawn is needed to boot it: install the package systemd-container" systemd-container
	@scripts/need.sh ssh "ssh is needed to deploy the package: install the package openssh-client" openssh-client
	@scripts/need.sh lintian "lintian is needed to check the package: install the package lintian" lintian
	@scripts/need.sh python3 "Python is needed to read the SBOM: install the package python3" python3
	tests/outside/package.sh

test-image: clickhouse image ## the container image: built, looked into, and run (needs root)
	@scripts/need.sh python3 "Python is needed to read what the image says of itself: install the package python3" python3
	@scripts/need.sh pgrep "pgrep is needed to find the server in the image: install the package procps" procps
	tests/outside/image.sh

test-observability: clickhouse build ## dashboard and alert rules, against promtool and a running server
	@scripts/need.sh promtool "promtool is needed to check the alert rules: install Debian's package prometheus" prometheus
	@scripts/need.sh python3 "Python is needed to read the dashboard: install the package python3" python3
	tests/outside/observability.sh

test-outside: clickhouse ## tests that need more: other versions of ClickHouse, replicas, nginx, HAProxy, Chromium, clients, packages
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	@scripts/need.sh java "Java is needed to run ZooKeeper: install the package default-jre-headless" default-jre-headless
	@scripts/need.sh /usr/share/zookeeper/bin/zkServer.sh "ZooKeeper is needed for real replicas: install Debian's package zookeeper" zookeeper
	@scripts/need.sh nginx "nginx is needed for the tests behind a proxy: install Debian's package nginx-light" nginx-light
	@scripts/need.sh haproxy "HAProxy is needed for the tests behind a proxy: install Debian's package haproxy" haproxy
	@scripts/need.sh openssl "openssl is needed to make the certificate of a proxy: install the package openssl" openssl
	@scripts/need.sh chromium "Chromium is needed for the tests of web pages: install the package chromium" chromium
	@scripts/need.sh node "Node is needed for its client: install the package nodejs" nodejs
	@scripts/need.sh python3 "Python is needed for its client: install the package python3" python3
	@scripts/need.sh go "Go is needed for its client: install Debian's package golang-go" golang-go
	@scripts/need.sh shellcheck "shellcheck is needed for the scripts: install the package shellcheck" shellcheck
	@scripts/need.sh promtool "promtool is needed to check metrics and alert rules: install Debian's package prometheus" prometheus
	shellcheck scripts/package scripts/image scripts/deploy scripts/debian/* docs/clients/*.sh tests/outside/*.sh
	ORACLE_TABLES=$${ORACLE_TABLES:-40} $(MAKE) test-versions VERSION_TESTS="$(VERSION_QUICK_TESTS)"
	cargo test --locked --no-fail-fast --test end_to_end -- --ignored --test-threads 1 assumptions:: behind_proxies:: browser:: clients:: page:: promtool:: replicated::
	$(MAKE) test-observability
	$(MAKE) test-image
	$(MAKE) test-package
