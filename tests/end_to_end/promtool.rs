//! `/metrics` as Prometheus' own linter sees it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Server, post, shared_clickhouse};

#[test]
#[ignore = "needs promtool: make test-outside"]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--batch-age", "50ms"]);
    let body = b"{\"event\":\"a\",\"a \\\"field\\\"\\n\":1,\"client_time\":1700000000}\nbad";
    assert_eq!(post(server.address(), "/api/events", body).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);
    server.wait_until_drained();
    let metrics = server.admin_get("/metrics");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package prometheus");
    promtool.stdin.take().unwrap().write_all(&metrics.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{}", String::from_utf8_lossy(&said), metrics.text());
}
