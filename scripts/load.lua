-- wrk's side of scripts/load-wrk.sh: POSTs of EVENTS lines each out of the file BODY, by turns, and
-- a count of the replies that are not 200.
local events = tonumber(os.getenv("EVENTS"))
local bodies = {}
local lines = {}
for line in io.lines(os.getenv("BODY")) do
    if line ~= "" then
        table.insert(lines, line)
    end
    if #lines == events then
        table.insert(bodies, table.concat(lines, "\n") .. "\n")
        lines = {}
    end
end
wrk.method = "POST"
wrk.body = bodies[1]
wrk.headers["Content-Type"] = "application/x-ndjson"

local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init()
    refused = 0
    -- One body is sent without asking Lua again.
    if #bodies <= 1 then
        return
    end
    local requests = {}
    for index, body in ipairs(bodies) do
        requests[index] = wrk.format(nil, nil, nil, body)
    end
    local turn = 0
    function request()
        turn = turn % #requests + 1
        return requests[turn]
    end
end

function response(status)
    if status ~= 200 then
        refused = refused + 1
    end
end

function done(summary, latency)
    local refused_in_all = 0
    for _, thread in ipairs(threads) do
        refused_in_all = refused_in_all + thread:get("refused")
    end
    local seconds = summary.duration / 1e6
    local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
    print(string.format("requests: %d (%.0f a second)", summary.requests, summary.requests / seconds))
    print(string.format("events:   %d (%.0f a second)", summary.requests * events, summary.requests * events / seconds))
    print(string.format("latency:  p50 %.2f ms, p99 %.2f ms, max %.2f ms",
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
    print(string.format("failed:   %d replies other than 200, %d broken connections", refused_in_all, errors))
end
