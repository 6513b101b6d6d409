#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET…]: runs each fuzz target for a while, on what earlier runs found and on the
# seeds in tests/fuzz/seeds. Fails when one finds something, and says with which input. FUZZ_SEED
# repeats the choices of a run.
set -euo pipefail

seconds=$1
shift
cd "$(dirname "$0")/.."
scripts/need.sh cargo "Rust is needed: see https://rustup.rs"
scripts/need.sh c++ "A C++ compiler is needed to build libFuzzer." g++

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(head body codings query forwarded proxy_header connection rows segment)
folder=target/fuzz
mkdir -p "$folder"
# What libFuzzer watches: branches, and what is compared.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
# With a target named, build scripts are not watched.
host=$(rustc -vV | awk '/^host:/ { print $2 }')
RUSTFLAGS="$flags" cargo build --release --locked --manifest-path tests/fuzz/Cargo.toml --target-dir "$folder" \
    --target "$host" $(printf -- '--bin %s ' "${targets[@]}")
for target in "${targets[@]}"; do
    corpus="$folder/corpus/$target"
    mkdir -p "$corpus" "$folder/found"
    echo "== $target, $seconds s"
    "$folder/$host/release/$target" "$corpus" "tests/fuzz/seeds/$target" -max_total_time="$seconds" -max_len=65536 \
        -timeout=20 -seed="${FUZZ_SEED:-0}" -print_final_stats=1 -artifact_prefix="$folder/found/$target-" 2>"$folder/$target.log" || {
        tail -n 40 "$folder/$target.log" >&2
        echo "The fuzz target $target found something: see $folder/found" >&2
        exit 1
    }
    awk '/^stat::number_of_executed_units/ { print "inputs tried: " $2 }' "$folder/$target.log"
done
