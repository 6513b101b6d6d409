#!/usr/bin/env bash
# Sends events, one JSON object a line, with curl:
#
#   SLUICEGATE_URL=https://events.example/api/events SLUICEGATE_KEY=… ./curl.sh <events.ndjson
#
# Batches wait in a folder. The name of a batch is its Idempotency-Key: after an interruption the next call sends what
# is left under the same keys, so nothing is stored twice. A batch that the server refuses for good stays, as .refused.
set -euo pipefail

url=${SLUICEGATE_URL:?} folder=${SLUICEGATE_QUEUE:-events.queue}
batch_lines=500 batches_max=10000 wait_max=30 # seconds

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9 # one sender a folder

# The input is cut into batches; they count once all of them are there.
if [ "$(find "$folder" -name '*.ndjson' | wc -l)" -ge "$batches_max" ]; then
    echo "the queue is full: $folder" >&2
    exit 75
fi
new=$(mktemp -d "$folder/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
split --lines="$batch_lines" --additional-suffix=.ndjson - "$new/$(cat /proc/sys/kernel/random/uuid)."
find "$new" -name '*.ndjson' -exec mv -t "$folder" {} +

for batch in "$folder"/*.ndjson; do
    [ -e "$batch" ] || break
    key=$(basename "$batch" .ndjson) wait=1
    while :; do
        # Without a whole reply curl fails, whatever the status was.
        answer=$(
            curl --silent --max-time 60 --output "$folder/reply" --write-out '%{http_code} %header{retry-after}' \
                --header "Idempotency-Key: $key" ${SLUICEGATE_KEY:+--header "X-Write-Key: $SLUICEGATE_KEY"} \
                --data-binary "@$batch" "$url"
        ) || answer='000'
        read -r status retry_after <<<"$answer"
        case $status in
            200 | 202)
                grep -q '"rejected":0' "$folder/reply" || echo "$key: $(cat "$folder/reply")" >&2
                rm "$batch"
                break ;;
            000 | 408 | 429 | 5??) ;; # nothing was promised: again
            *)
                echo "$key: $status $(cat "$folder/reply")" >&2
                mv "$batch" "$folder/$key.refused"
                break ;;
        esac
        # As long as the server says, and a random part of a time that doubles, so that clients do not come at once.
        [[ ${retry_after:-} =~ ^[0-9]+$ ]] || retry_after=0
        sleep "$retry_after.$((RANDOM % 900 + 100))"
        sleep "$((RANDOM % wait)).$((RANDOM % 1000))"
        wait=$((wait * 2 < wait_max ? wait * 2 : wait_max))
    done
done
