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

# What an INSERT can meet, once more with the format and the compression that are not the defaults.
IN_THE_OTHER_FORMAT = SLUICEGATE_INSERT_FORMAT=native SLUICEGATE_INSERT_COMPRESSION=zstd \
	cargo test --locked --no-fail-fast --test events --test damage --test outcomes --test schema_change \
	--test proxy --test presence --test replicas --test faults --test quarantine

# What the other engine is tested with: its own file, and those of the promises that both keep.
MAY_TESTS ?= engine_may crash disk duplicates events faults idempotency inserted ledger lifecycle outcomes quarantine \
	schema_change

.PHONY: help build clickhouse run test test-may crash-test check sim fuzz bench bench-insert bench-peers bench-stages \
	load-wrk load-ab clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the release binary, target/release/sluicegate
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	cargo build --release --locked

clickhouse: ## fetch the embedded ClickHouse, once
	@scripts/fetch-clickhouse.sh

run: build clickhouse ## build and serve on port 8080, with an embedded ClickHouse on 8123
	target/release/sluicegate serve --embedded ./data/clickhouse

test: clickhouse ## every test, those against a real ClickHouse included
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	cargo test --locked --no-fail-fast
	$(IN_THE_OTHER_FORMAT)

test-may: clickhouse ## the tests of what both engines promise, through --engine may
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	SLUICEGATE_ENGINE=may cargo test --locked --no-fail-fast --features engine-may $(MAY_TESTS:%=--test %) \
		-- --skip a_chunked_body

crash-test: clickhouse ## kill server and ClickHouse under load: ROUNDS, CRASH_SEED
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	CRASH_ROUNDS=$(ROUNDS) cargo test --locked --test crash -- --nocapture

check: clickhouse ## format, clippy with warnings denied, tests
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	@scripts/need.sh strace "strace is needed for the tests of a failing disk and a killed ClickHouse: install the package strace" strace
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --no-fail-fast
	$(IN_THE_OTHER_FORMAT)
	cargo clippy --locked --all-targets --features engine-may -- -D warnings
	$(MAKE) test-may MAY_TESTS="engine_may events"

sim: ## lives of a spool on a faulty disk, held against what was promised: SEEDS, FIRST_SEED
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	CARGO_PROFILE_DEV_OPT_LEVEL=2 SIM_SEEDS=$(SEEDS) SIM_FIRST_SEED=$(FIRST_SEED) \
		cargo test --locked --lib what_was_acknowledged

fuzz: ## each fuzz target for SECONDS_EACH
	@scripts/fuzz.sh "$(SECONDS_EACH)"

bench: clickhouse ## the encoder; the server beside a bare read-and-answer loop; memory; INSERTs; bench-peers
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	cargo bench --locked --bench encoder
	cargo bench --locked --bench server
	cargo bench --locked --bench memory
	cargo bench --locked --bench insert
	cargo bench --locked --bench peers

bench-stages: clickhouse ## where the CPU time of a request goes, by perf
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	cargo bench --locked --bench stages

bench-insert: clickhouse ## what an INSERT costs ClickHouse and the server, by format, compression and size
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	cargo bench --locked --bench insert

bench-peers: clickhouse ## the server beside others that do the same job, built here too: TABLE=null or mergetree
	@scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
	BENCH_TABLE=$(TABLE) cargo bench --locked --bench peers

load-wrk: ## send events with wrk: URL, CONNECTIONS, DURATION, BODY (a file, or random)
	@scripts/load-wrk.sh "$(URL)" "$(CONNECTIONS)" "$(DURATION)" "$(BODY)"

load-ab: ## send events with ab, with and without keep-alive: URL, CONNECTIONS, REQUESTS, BODY (a file, or random)
	@scripts/load-ab.sh "$(URL)" "$(CONNECTIONS)" "$(REQUESTS)" "$(BODY)"

clean: ## what was built; ./data stays
	cargo clean
