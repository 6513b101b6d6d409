//! Pages of another origin in a real Chromium: `fetch`, `XMLHttpRequest`, `keepalive` and beacons, with and
//! without keys; what the page learns, and what is in ClickHouse.

use std::collections::BTreeMap;

use crate::support::{Browser, ClickHouse, Folder, Pages, Server, shared_clickhouse, wait_for};

/// What every page has: `send` tells what became of a `fetch`, and `report` tells the test.
const COMMON: &str = r#"<script>
const url = "SERVER/api/events";
const event = name => JSON.stringify({ event: name });
const results = {};
async function send(name, options, query = "") {
  try {
    const reply = await fetch(url + query, { method: "POST", body: event(name), ...options });
    const fields = ["Retry-After", "X-Request-Id", "X-RateLimit-Remaining"].map(field => reply.headers.get(field));
    results[name] = [reply.status, (await reply.json()).error ?? "", fields[0] ?? "", fields[1] ? "id" : "", fields[2] ?? ""].join(" ");
  } catch (error) { results[name] = error.name; }
}
const xhr = (name, fields) => new Promise(done => {
  const request = new XMLHttpRequest();
  request.open("POST", url);
  for (const [field, value] of Object.entries(fields)) request.setRequestHeader(field, value);
  request.onloadend = () => {
    results[name] = [request.status, request.status ? request.getResponseHeader("X-Request-Id") : ""].join(" ");
    done();
  };
  request.send(event(name));
});
const report = what => fetch("/report", { method: "POST", body: what });
</script>"#;

/// The page that a page leaves for.
const NEXT: &str = r#"<script>fetch("/report", { method: "POST", body: "next" });</script>"#;

/// The page's script is an `async` function; in the end the page is left for another one.
fn put(pages: &Pages, server: &Server, script: &str) {
    let common = COMMON.replace("SERVER", &format!("http://{}", server.address()));
    let main = format!(
        "{common}<script>(async () => {{ {script} await report(JSON.stringify(results)); location = '/next'; }})()\
         .catch(error => report('failed: ' + error));</script>"
    );
    pages.put("/", main);
    pages.put("/next", NEXT.to_owned());
}

/// Opens the page: what it has learned of each of its requests. The page is left then.
fn results(pages: &Pages) -> (BTreeMap<String, String>, Browser) {
    let browser = Browser::open(&pages.origin());
    let report = pages.report();
    let results = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
    assert_eq!(pages.report(), "next");
    (results, browser)
}

/// Waits until the table has these events, in any order.
fn wait_for_events(server: &Server, clickhouse: &ClickHouse, database: &str, events: &[&str]) {
    let stored = || {
        let rows = clickhouse.query(&format!("SELECT event FROM {database}.events ORDER BY event"));
        rows.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut events = events.to_vec();
    events.sort_unstable();
    wait_for(
        || format!("{:?} are stored in place of {events:?}:\n{}", stored(), server.log()),
        || (stored() == events).then_some(()),
    );
}

/// A key file in this folder.
fn with_keys(folder: &Folder) -> String {
    let file = folder.path().join("keys");
    let keys = "web-0123456789abcdef name=web\nslow-0123456789abcde name=slow rate=1/s,burst=1\n";
    std::fs::write(&file, keys).unwrap();
    file.to_str().unwrap().to_owned()
}

const ALL_WAYS: &str = r#"
  const key = { "Authorization": "Bearer web-0123456789abcdef" };
  await send("fetch", { headers: { ...key, "Idempotency-Key": "1" } });
  results.first = results.fetch;
  await send("fetch", { headers: { ...key, "Idempotency-Key": "1" } });
  await send("json", { headers: { ...key, "Content-Type": "application/json" } });
  await send("query", {}, "?key=web-0123456789abcdef");
  await send("keepalive", { keepalive: true }, "?key=web-0123456789abcdef");
  await send("keepalive-field", { keepalive: true, headers: key });
  await send("no-key", {});
  await send("wrong-key", { headers: { "X-Write-Key": "x" } });
  await send("bad-query", {}, "?key=web-0123456789abcdef&ack=never");
  await send("slow", {}, "?key=slow-0123456789abcde");
  results.overs = "0";
  for (;;) {
    await send("over", {}, "?key=slow-0123456789abcde");
    if (!results.over.startsWith("200")) break;
    results.overs = String(Number(results.overs) + 1);
  }
  await send("never", { body: event("never") + "\n" + event("never") }, "?key=slow-0123456789abcde");
  await xhr("xhr", { "X-Write-Key": "web-0123456789abcdef", "X-Request-Id": "mine" });
  await xhr("xhr-no-key", {});
  addEventListener("pagehide", () => {
    navigator.sendBeacon(url + "?key=web-0123456789abcdef", event("beacon"));
    navigator.sendBeacon(url, event("beacon-no-key"));
    fetch(url + "?key=web-0123456789abcdef", { method: "POST", keepalive: true, body: event("last") });
    fetch(url, { method: "POST", keepalive: true, body: event("last-field"), headers: key });
  });
"#;

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn an_allowed_page_learns_what_became_of_its_requests_and_what_it_sends_at_its_end_arrives() {
    let clickhouse = shared_clickhouse();
    for is_exact in [true, false] {
        let (database, folder, pages) = (clickhouse.database(), Folder::new(), Pages::new());
        let (keys, origin) = (with_keys(&folder), pages.origin());
        let allowed = if is_exact { &origin } else { "*" };
        let server = Server::start(clickhouse, &database, &["--write-key-file", &keys, "--cors-origin", allowed]);
        put(&pages, &server, ALL_WAYS);
        let (results, _browser) = results(&pages);
        for name in ["first", "fetch", "json", "query", "keepalive", "keepalive-field"] {
            assert_eq!(results[name], "200   id ", "{name} of {results:?}");
        }
        assert_eq!(results["no-key"], "401 missing_key  id ");
        assert_eq!(results["wrong-key"], "403 wrong_key  id ");
        assert_eq!(results["bad-query"], "400 bad_query  id ");
        assert_eq!(results["slow"], "200   id 0");
        assert_eq!(results["over"], "429 over_rate 1 id 0");
        assert_eq!(results["never"], "413 too_many_events  id ");
        assert_eq!(results["xhr"], "200 mine");
        assert!(results["xhr-no-key"].starts_with("401 "), "{results:?}");
        let expected =
            ["fetch", "json", "query", "keepalive", "keepalive-field", "slow", "xhr", "beacon", "last", "last-field"];
        let over = std::iter::repeat_n("over", results["overs"].parse().unwrap());
        wait_for_events(&server, clickhouse, &database, &expected.into_iter().chain(over).collect::<Vec<_>>());
        // Preflights, and what a page sent at its end, were answered as pages are.
        let metrics = server.metrics();
        assert!(metrics["sluicegate_requests_total{code=\"204\"}"] >= 1.0, "{metrics:?}");
        wait_for(
            || format!("the beacon without a key is not refused: {:?}", server.metrics()),
            || (server.metrics()["sluicegate_requests_total{code=\"401\"}"] == 3.0).then_some(()),
        );
        assert!(server.stop().success());
    }
}

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn a_page_that_is_not_allowed_sees_a_failure_though_what_needs_no_preflight_is_stored() {
    let clickhouse = shared_clickhouse();
    for flags in [&[][..], &["--cors-origin", "https://shop.example"]] {
        let (database, pages) = (clickhouse.database(), Pages::new());
        let server = Server::start(clickhouse, &database, flags);
        put(
            &pages,
            &server,
            r#"
              await send("fetch", {});
              await send("keyed", { headers: { "Idempotency-Key": "1" } });
              await xhr("xhr", {});
              await xhr("xhr-field", { "X-Write-Key": "x" });
              navigator.sendBeacon(url, event("beacon"));
            "#,
        );
        let (results, _browser) = results(&pages);
        assert_eq!([&results["fetch"], &results["keyed"]], ["TypeError"; 2]);
        assert_eq!([&results["xhr"], &results["xhr-field"]], ["0 "; 2]);
        wait_for_events(&server, clickhouse, &database, &["fetch", "xhr", "beacon"]);
        assert!(server.stop().success());
    }
}
