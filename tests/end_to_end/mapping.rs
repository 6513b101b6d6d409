//! Mappings of a configuration file, through both engines: what is stored, what is rejected, counted and
//! suggested, and what of a mapping does not fit the table.

use std::path::Path;

use crate::support::{
    ClickHouse, Folder, Server, Variant, each_engine, post, post_with, run, shared_clickhouse, wait_for,
};

fn configured(clickhouse: &ClickHouse, database: &str, text: &str, flags: &[&str]) -> (Server, Folder, String) {
    let folder = Folder::new();
    let path = Path::new(folder.path()).join("sluicegate.toml").to_string_lossy().into_owned();
    std::fs::write(&path, text).unwrap();
    let server = Server::start(clickhouse, database, &[&["--config", path.as_str()], flags].concat());
    (server, folder, path)
}

fn create(clickhouse: &ClickHouse, table: &str, columns: &str) {
    clickhouse.query(&format!(
        "CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple() \
         SETTINGS non_replicated_deduplication_window = 10000"
    ));
}

fn rows(clickhouse: &ClickHouse, table: &str) -> String {
    let settings = "SETTINGS output_format_json_quote_64bit_integers = 0";
    clickhouse.query(&format!("SELECT * FROM {table} ORDER BY n FORMAT JSONEachRow {settings}")).trim().to_owned()
}

each_engine!(
    columns_get_what_the_mapping_says_in_both_engines,
    a_line_without_a_required_column_or_with_an_unknown_field_is_rejected,
);

fn columns_get_what_the_mapping_says_in_both_engines(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(
        clickhouse,
        &format!("{database}.hits"),
        "n UInt8, user String, id String, app LowCardinality(String), country String DEFAULT 'none', \
         agent Nullable(String), request String, whole String, short String, hashed String, nothing String, \
         ts DateTime64(3, 'UTC'), rest Map(String, String), received DateTime64(3, 'UTC')",
    );
    let key = Folder::new();
    let key = Path::new(key.path()).join("key");
    std::fs::write(&key, "0123456789abcdef").unwrap();
    let text = format!(
        r#"
        client-ip = "none"
        client-ip-key-file = {key:?}
        [table.hits]
        unknown-fields = {{ collect = "rest" }}
        [table.hits.columns]
        user = ["user.name", "who"]
        id = "user.id"
        app = {{ value = "game-1" }}
        country = {{ header = "CF-IPCountry" }}
        agent = "user-agent"
        request = "request-id"
        whole = "line"
        short = {{ client-ip = "truncated" }}
        hashed = {{ client-ip = "hashed" }}
        nothing = {{ client-ip = "none" }}
        ts = {{ field = "time.at", unit = "ms" }}
        received = "server-time"
        "#
    );
    let (server, _folder, _) = configured(clickhouse, &database, &text, &variant.and(&[]));
    let headers = "CF-IPCountry: DE\r\nUser-Agent: probe/1\r\nX-Request-Id: request-1\r\n";
    let body = "{\"n\":1,\"user\":{\"name\":\"ann\",\"id\":7,\"plan\":\"free\"},\"time\":{\"at\":86400005},\"x\":[1]}\n\
                { \"who\":\"bob\", \"n\":2 } \n";
    let reply = post_with(server.address(), "/api/hits", headers, body.as_bytes());
    assert_eq!(reply.text(), "{\"accepted\":2,\"rejected\":0}");
    assert_eq!(post(server.address(), "/api/hits", b"{\"n\":3}").text(), "{\"accepted\":1,\"rejected\":0}");
    server.wait_for_rows(clickhouse, &format!("{database}.hits"), 3);
    let stored = clickhouse.query(&format!(
        "SELECT n, user, id, app, country, agent, request, whole, short, length(hashed), nothing, ts, rest, \
         received > now64() - 600 FROM {database}.hits WHERE n < 3 ORDER BY n FORMAT JSONCompactEachRow"
    ));
    let lines: Vec<&str> = body.lines().map(str::trim).collect();
    let expected = |n: u8, user: &str, id: &str, ts: &str, rest: &str| {
        format!(
            "[{n}, \"{user}\", \"{id}\", \"game-1\", \"DE\", \"probe/1\", \"request-1\", {}, \"127.0.0.0\", {}, \"\", \
             \"{ts}\", {rest}, 1]",
            serde_json::to_string(lines[usize::from(n) - 1]).unwrap(),
            32
        )
    };
    let same = |stored: &str| -> Vec<serde_json::Value> {
        stored.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = expected(1, "ann", "7", "1970-01-02 00:00:00.005", "{\"user.plan\":\"free\",\"x\":\"[1]\"}");
    let second = expected(2, "bob", "", "1970-01-01 00:00:00.000", "{}");
    assert_eq!(same(&stored), same(&format!("{first}\n{second}")));
    let without = clickhouse.query(&format!(
        "SELECT country, agent, length(request) > 0 FROM {database}.hits WHERE n = 3 FORMAT JSONCompactEachRow"
    ));
    assert_eq!(same(&without), same("[\"none\", null, 1]"), "without the headers there are the defaults");
    assert!(server.stop().success());
}

fn a_line_without_a_required_column_or_with_an_unknown_field_is_rejected(variant: Variant) {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.hits"), "n UInt8, event String");
    let text = "[table.hits]\nrequired = [\"event\"]\nunknown-fields = \"reject\"\n[table.hits.columns]\n\
                event = [\"e\", \"props.e\"]\n";
    let (server, _folder, _) = configured(clickhouse, &database, text, &variant.and(&[]));
    let body = "{\"n\":1,\"e\":\"a\"}\n{\"n\":2}\n{\"n\":3,\"e\":null,\"props\":{\"e\":\"b\"}}\n{\"n\":4,\"e\":\"c\",\"x\":1}\n\
                {\"n\":5,\"e\":\"d\",\"props\":{\"y\":1}}\n";
    let reply: serde_json::Value =
        serde_json::from_str(&post(server.address(), "/api/hits", body.as_bytes()).text()).unwrap();
    let errors: Vec<_> =
        reply["errors"].as_array().unwrap().iter().map(|error| (&error["line"], &error["code"])).collect();
    let expected = [(2, "missing_field"), (4, "unknown_field"), (5, "unknown_field")];
    assert_eq!(errors, expected.map(|(line, code)| (line.into(), code.into())).each_ref().map(|(l, c)| (l, c)));
    server.wait_for_rows(clickhouse, &format!("{database}.hits"), 2);
    assert_eq!(rows(clickhouse, &format!("{database}.hits")), "{\"n\":1,\"event\":\"a\"}\n{\"n\":3,\"event\":\"b\"}");
    let codes = format!("SELECT code FROM {database}.hits_quarantine ORDER BY code, line");
    wait_for(|| server.log(), || (clickhouse.query(&codes).lines().count() == 3).then_some(()));
    assert_eq!(clickhouse.query(&codes).trim(), "missing_field\nunknown_field\nunknown_field");
    assert!(server.stop().success());
}

#[test]
fn unknown_fields_and_guessed_units_are_counted_and_columns_are_suggested_that_take_all_that_was_seen() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.hits"), "n UInt8, ts DateTime('UTC')");
    let (server, _folder, path) = configured(clickhouse, &database, "[table.hits]\n[table.events]\n", &[]);
    let odd = "a \\\"quoted\\\"\\nname";
    let lines = [
        "{\"n\":1,\"i\":1,\"u\":18446744073709551615,\"f\":1,\"t\":\"x\",\"b\":true,\"o\":{\"a\":1},\"l\":[1,2],\"m\":1}".to_owned(),
        "{\"n\":2,\"i\":-7,\"u\":0,\"f\":1.5,\"t\":null,\"b\":false,\"o\":{},\"l\":[],\"m\":\"x\",\"ts\":1606864194}".to_owned(),
        format!("{{\"n\":3,\"{odd}\":1,\"ts\":1606864194000}}"),
        "{\"n\":4,\"ip\":\"1.2.3.4\",\"\":1,\"a.b\":1e400,\"large\":1e400}".to_owned(),
    ];
    let body = lines.join("\n");
    assert_eq!(post(server.address(), "/api/hits", body.as_bytes()).text(), "{\"accepted\":4,\"rejected\":0}");
    let metrics = server.metrics();
    let of = |labels: &str| metrics.get(&format!("sluicegate_{labels}")).copied();
    assert_eq!(of("unknown_fields_total{table=\"hits\",field=\"i\"}"), Some(2.0));
    assert_eq!(of(&format!("unknown_fields_total{{table=\"hits\",field=\"{odd}\"}}")), Some(1.0), "{metrics:?}");
    assert_eq!(of("guessed_units_total{table=\"hits\",column=\"ts\",unit=\"s\"}"), Some(1.0));
    assert_eq!(of("guessed_units_total{table=\"hits\",column=\"ts\",unit=\"ms\"}"), Some(1.0));
    let stats: serde_json::Value = serde_json::from_str(&server.admin_get("/stats").text()).unwrap();
    assert_eq!(stats["figures"]["unknown_fields_total"]["hits"]["l"], 2);
    let admin = server.admin_address().to_string();
    let url = clickhouse.url();
    let arguments = |only: &'static str| {
        ["schema", "--suggest", "--config", path.as_str(), "--only", only, "--database", database.as_str()]
            .into_iter()
            .chain(["--clickhouse-url", url.as_str(), "--admin-listen", admin.as_str()])
            .collect::<Vec<_>>()
    };
    let (worked, suggested, errors) = run(&arguments("hits"));
    assert!(worked, "{errors}");
    for (name, type_name) in [
        ("i", "Int64"),
        ("u", "UInt64"),
        ("f", "Float64"),
        ("t", "Nullable(String)"),
        ("b", "Bool"),
        ("o", "JSON"),
        ("l", "Array(Int64)"),
        ("m", "String"),
        ("ip_2", "String"),
        ("a_b", "String"),
        ("large", "String"),
    ] {
        let statement = format!("ALTER TABLE `{database}`.`hits` ADD COLUMN `{name}` {type_name};");
        assert!(suggested.contains(&statement), "{statement}\n{suggested}");
    }
    let statements = suggested.split(";\n").filter(|statement| statement.contains("ALTER TABLE"));
    statements.for_each(|statement| _ = clickhouse.query(statement));
    let (worked, suggested, errors) = run(&arguments("hits"));
    assert!(worked && !suggested.contains("ALTER"), "{suggested}{errors}");
    for mapping in ["\"ip_2\" = \"ip\"", "\"a_b\" = \"a.b\""] {
        assert!(suggested.contains(mapping), "{mapping}\n{suggested}");
    }
    let (worked, suggested, _) = run(&arguments("events"));
    assert!(worked && suggested.contains("no field came that no column takes"), "{suggested}");
    assert!(server.log().contains("magnitude") && server.log().contains("ts"), "{}", server.log());
    assert!(server.stop().success());
    let (worked, _, errors) = run(&arguments("hits"));
    assert!(!worked && errors.contains("no server answers"), "{errors}");
    let (server, _folder, _) = configured(clickhouse, &database, "[table.hits]\n[table.events]\n", &[]);
    let reply = post(server.address(), "/api/hits", lines[..2].join("\n").as_bytes()).text();
    assert_eq!(reply, "{\"accepted\":2,\"rejected\":0}", "the columns take all that was seen");
    assert!(server.metrics().keys().all(|name| !name.contains("unknown_fields_total{")), "{:?}", server.metrics());
    assert!(server.stop().success());
}

#[test]
fn a_mapping_that_does_not_fit_is_named_at_the_start_and_after_a_change_and_stops_no_other_table() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    create(clickhouse, &format!("{database}.hits"), "n UInt8");
    create(clickhouse, &format!("{database}.other"), "n UInt8, late UInt8");
    let hits = "[table.hits]\n[table.hits.columns]\nlate = \"a.b\"\n";
    let folder = Folder::new();
    let path = Path::new(folder.path()).join("alone.toml").to_string_lossy().into_owned();
    std::fs::write(&path, hits).unwrap();
    let (status, log) = Server::expect_failure(clickhouse, &database, &["--config", path.as_str()]);
    assert!(!status.success() && log.contains("`columns` names the column `late`"), "{log}");
    let text = format!("{hits}[table.other]\n[table.other.columns]\nlate = {{ value = 300 }}\n[table.events]\n");
    let (server, _folder, path) = configured(clickhouse, &database, &text, &[]);
    let status =
        |table: &str| post(server.address(), &format!("/api/{table}?dry_run=1"), b"{\"n\":1,\"event\":\"x\"}").status;
    assert_eq!(["hits", "other", "events"].map(status), [503, 503, 200]);
    let ready = server.admin_get("/readyz").text();
    assert!(ready.contains("`late`") && ready.contains("can't have this value"), "{ready}");
    let url = clickhouse.url();
    let (worked, report, _) =
        run(&["check", "--config", path.as_str(), "--database", database.as_str(), "--clickhouse-url", url.as_str()]);
    assert!(worked && report.contains("`columns` names the column `late`"), "{report}");
    clickhouse.query(&format!("ALTER TABLE {database}.hits ADD COLUMN late UInt8"));
    clickhouse.query(&format!("ALTER TABLE {database}.other MODIFY COLUMN late UInt16"));
    for table in ["hits", "other"] {
        wait_for(|| server.log(), || (status(table) == 200).then_some(()));
    }
    clickhouse.query(&format!("ALTER TABLE {database}.hits DROP COLUMN late"));
    // Its row can't be inserted, so the server asks for the table's columns at once.
    assert_eq!(post(server.address(), "/api/hits", b"{\"n\":1}").status, 200);
    let named = "table hits: the table has changed and can't be followed: `columns` names the column `late`";
    wait_for(
        || server.admin_get("/readyz").text(),
        || server.admin_get("/readyz").text().contains(named).then_some(()),
    );
    assert_eq!(status("events"), 200);
    assert!(server.stop().success());
}

#[test]
fn headers_count_from_trusted_proxies_alone_where_there_are_any_and_the_key_has_its_name() {
    let clickhouse = shared_clickhouse();
    let keys = Folder::new();
    let keys = Path::new(keys.path()).join("keys");
    std::fs::write(&keys, "0123456789abcdef name=web\nfedcba9876543210\n").unwrap();
    let text = format!(
        "write-key-file = {keys:?}\n[table.hits]\nrequired = [\"sender\"]\n[table.hits.columns]\n\
         country = {{ header = \"CF-IPCountry\" }}\nagent = \"user-agent\"\nsender = \"key-name\"\n"
    );
    for (proxy, country) in [("127.0.0.1", "DE"), ("10.0.0.0/8", "")] {
        let database = clickhouse.database();
        create(clickhouse, &format!("{database}.hits"), "n UInt8, country String, agent String, sender String");
        let (server, _folder, _) = configured(clickhouse, &database, &text, &["--trusted-proxy", proxy]);
        let send = |n: u8, headers: &str| {
            let headers = format!("CF-IPCountry: DE\r\n{headers}\r\n");
            post_with(server.address(), "/api/hits", &headers, format!("{{\"n\":{n}}}").as_bytes()).text()
        };
        assert!(send(1, "User-Agent: a\r\nX-Write-Key: 0123456789abcdef").contains("\"accepted\":1"));
        assert!(send(2, "CF-IPCountry: FR\r\nX-Write-Key: 0123456789abcdef").contains("\"accepted\":1"));
        let refused = send(3, "X-Write-Key: fedcba9876543210");
        assert!(refused.contains("\"column\":\"sender\",\"code\":\"missing_field\""), "{refused}");
        server.wait_for_rows(clickhouse, &format!("{database}.hits"), 2);
        let first = format!("{{\"n\":1,\"country\":\"{country}\",\"agent\":\"a\",\"sender\":\"web\"}}");
        let second = "{\"n\":2,\"country\":\"\",\"agent\":\"\",\"sender\":\"web\"}";
        assert_eq!(rows(clickhouse, &format!("{database}.hits")), format!("{first}\n{second}"), "repeated is none");
        assert!(server.stop().success());
    }
}

#[test]
fn a_line_that_is_replayed_is_mapped_and_lacks_what_its_request_said() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let hits = format!("{database}.hits");
    let columns = "n UInt8, who String, country String DEFAULT 'none', short String, app String, ip String, \
                   server_time DateTime('UTC')";
    create(clickhouse, &hits, columns);
    let text = "[table.hits]\n[table.hits.columns]\nwho = \"user.id\"\ncountry = { header = \"CF-IPCountry\" }\n\
                short = { client-ip = \"truncated\" }\napp = { value = \"game\" }\n";
    let (server, _folder, path) = configured(clickhouse, &database, text, &[]);
    let reply =
        post_with(server.address(), "/api/hits", "CF-IPCountry: DE\r\n", b"{\"n\":300,\"user\":{\"id\":\"ann\"}}");
    assert!(reply.status == 422 && reply.text().contains("out_of_range"), "{}", reply.text());
    let quarantined = format!("SELECT server_time FROM {hits}_quarantine");
    wait_for(|| server.log(), || (clickhouse.query(&quarantined).lines().count() == 1).then_some(()));
    let time = clickhouse.query(&quarantined).trim().to_owned();
    clickhouse.query(&format!("ALTER TABLE {hits} MODIFY COLUMN n UInt16"));
    let server = server.restart();
    let (url, admin) = (clickhouse.url(), server.admin_address().to_string());
    let (worked, said, errors) = run(&[
        "quarantine",
        "replay",
        "--config",
        path.as_str(),
        "--database",
        database.as_str(),
        "--clickhouse-url",
        url.as_str(),
        "--admin-listen",
        admin.as_str(),
    ]);
    assert!(worked && said.contains("1 accepted"), "{said}{errors}");
    server.wait_for_rows(clickhouse, &hits, 1);
    let expected = format!(
        "{{\"n\":300,\"who\":\"ann\",\"country\":\"none\",\"short\":\"127.0.0.0\",\"app\":\"game\",\"ip\":\"127.0.0.1\",\
         \"server_time\":\"{time}\"}}"
    );
    assert_eq!(rows(clickhouse, &hits), expected);
    assert!(server.stop().success());
}
