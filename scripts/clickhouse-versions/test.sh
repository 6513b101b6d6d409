#!/usr/bin/env bash
# test.sh VERSION MODULE…: fetches another version of ClickHouse and runs these modules of tests/end_to_end
# against it. What it can't run is named in the file `lacks` and said here, with the reason.
set -euo pipefail

cd "$(dirname "$0")/../.."
here=scripts/clickhouse-versions
name=$1
shift
"$here/fetch.sh" "$name"

chosen=" $* "
skipped=()
listed=$(cargo test --locked --quiet --test end_to_end -- --list)
while read -r version file test reason; do
    [[ $version == "$name" && $chosen == *" $file "* ]] || continue
    grep -qE "^$file::$test(: test|::)" <<<"$listed" || {
        echo "$here/lacks names a test that tests/end_to_end/$file.rs does not have: $test" >&2
        exit 1
    }
    echo "Not run against ClickHouse $name: $file, $test: $reason"
    skipped+=(--skip "$file::$test")
done < <(grep -v '^#' "$here/lacks")

echo "== ClickHouse $name: $*"
TEST_CLICKHOUSE=$name cargo test --locked --no-fail-fast --test end_to_end -- "${@/%/::}" "${skipped[@]}"
