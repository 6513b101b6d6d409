#!/usr/bin/env bash
# test.sh VERSION TEST-FILE…: fetches another version of ClickHouse and runs test files against it. What it can't
# run is named in the file `lacks` and said here, with the reason.
set -euo pipefail

cd "$(dirname "$0")/../.."
here=scripts/clickhouse-versions
name=$1
shift
"$here/fetch.sh" "$name"

chosen=" $* "
skipped=()
while read -r version file test reason; do
    [[ $version == "$name" && $chosen == *" $file "* ]] || continue
    cargo test --locked --quiet --test "$file" -- --list --exact "$test" | grep -qx "$test: test" || {
        echo "$here/lacks names a test that tests/$file.rs does not have: $test" >&2
        exit 1
    }
    echo "Not run against ClickHouse $name: $file, $test: $reason"
    skipped+=(--skip "$test")
done < <(grep -v '^#' "$here/lacks")

echo "== ClickHouse $name: $*"
TEST_CLICKHOUSE=$name cargo test --locked --no-fail-fast $(printf -- '--test %s ' "$@") -- --exact "${skipped[@]}"
