#!/usr/bin/env bash
# random-events.sh COUNT: prints so many events, one a line, each with values of its own; about
# 230 bytes a line, 400 at most. RANDOM_SEED repeats a run's events.
set -euo pipefail

awk -v count="$1" -v seed="${RANDOM_SEED:-$RANDOM$RANDOM}" '
    function below(n) { return int(rand() * n) }
    function one_of(list,    choices) { return choices[1 + below(split(list, choices, "|"))] }
    function text(len, from,    out) {
        out = ""
        while (len-- > 0) out = out substr(from, 1 + below(length(from)), 1)
        return out
    }
    function words(    out, n) {
        out = ""
        for (n = below(6); n > 0; n--) out = out (out == "" ? "" : " ") one_of("level|coins|\\\"gold\\\"|\\u043f\\u0440\\u0438\\u0432\\u0435\\u0442|größer|path\\\\to|" text(9, letters))
        return out
    }
    BEGIN {
        srand(seed)
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        hex = "0123456789ABCDEF"
        for (line = 0; line < count; line++) {
            printf "{\"client_time\":\"2020-%02d-%02d %02d:%02d:%02d\",", 1 + below(12), 1 + below(28), below(24), below(60), below(60)
            printf "\"device_id\":\"%s-%s-4%s-A%s-%s\",", text(8, hex), text(4, hex), text(3, hex), text(3, hex), text(12, hex)
            printf "\"device_os\":\"%s\",\"session\":\"%s\",", one_of("iOS 13.5.1|iOS 14.2|Android 10|Android 11"), text(16, letters)
            printf "\"sequence\":%d,\"event\":\"%s\",", below(1000), one_of("app_start|app_stop|level_start|level_end|purchase")
            printf "\"param_int\":%d,\"param_str\":\"%s\"}\n", below(1000000), words()
        }
    }'
