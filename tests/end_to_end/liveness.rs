//! `sluicegate check --live`, the health check of the container image.

use rustix::process::Signal;

use crate::support::{Server, free_address, run, shared_clickhouse};

#[test]
fn check_live_fails_where_no_server_answers_or_it_hangs_and_needs_no_clickhouse() {
    let clickhouse = shared_clickhouse();
    let nobody = free_address().to_string();
    let (ok, _, error) = run(&["check", "--live", "--admin-listen", &nobody]);
    assert!(!ok && error.contains(&format!("no server answers at http://{nobody}/livez")), "{error}");
    let server = Server::start(clickhouse, &clickhouse.database(), &[]);
    let admin = server.admin_address().to_string();
    // The ClickHouse that it names is nowhere.
    let arguments = ["check", "--live", "--admin-listen", &admin, "--clickhouse-url", "http://127.0.0.1:1"];
    let (ok, said, error) = run(&arguments);
    assert!(ok && said.is_empty(), "{said}{error}");
    server.signal(Signal::STOP);
    let (ok, _, error) = run(&arguments);
    assert!(!ok && error.contains("no server answers"), "{error}");
    server.signal(Signal::CONT);
    assert!(run(&arguments).0);
    assert!(server.stop().success());
}
