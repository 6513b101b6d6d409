//! What a value means: the same lines through the server and through ClickHouse's own JSONEachRow,
//! compared inside ClickHouse. Where both differ, the list of exceptions says why.

use crate::oracle::{Line, compare};
use crate::support::{ClickHouse, Server, free_address, post, shared_clickhouse, wait_for};

const TIME_COLUMNS: [(&str, &str); 6] = [
    ("seconds", "DateTime('UTC')"),
    ("berlin", "DateTime('Europe/Berlin')"),
    ("millis", "DateTime64(3, 'UTC')"),
    ("nanos", "DateTime64(9, 'America/New_York')"),
    ("day", "Date"),
    ("day32", "Date32"),
];

/// Texts that mean a time, or look like one.
const TEXTS: [&str; 133] = [
    "2020-12-01 23:09:54",
    "2020-12-01T23:09:54",
    "2020-12-01T23:09:54Z",
    "2020-12-01T23:09:54.1Z",
    "2020-12-01T23:09:54.123456789Z",
    "2020-12-01T23:09:54.123456789123Z",
    "2020-12-01 23:09:54.",
    "2020-12-01 23:09:54.x",
    "2020-12-01 23:09:54.1.2",
    "2020-12-01T23:09:54+03:00",
    "2020-12-01T23:09:54-0330",
    "2020-12-01T23:09:54+03",
    "2020-12-01T23:09:54+3",
    "2020-12-01T23:09:54+3:5",
    "2020-12-01T23:09:54+330",
    "2020-12-01T23:09:54 +03:00",
    "2020-12-01T23:09:54+03:00x",
    "2020-12-01T23:09:54z",
    "2020-12-01 23:09:54 UTC",
    "2020-12-01 23:09:54 utc",
    "2020-12-01 23:09:54 GMT",
    "2020-12-01 23:09:54 MSK",
    "2020-12-01 23:09:54 MSD",
    "2020-12-01 23:09:54 EST",
    "2020-12-01 23:09:54 PST",
    "2020-12-01 23:09:54 +0000 UTC",
    "2020-12-01 23:09:54.123456789 +0300 UTC",
    "2020-12-01 23:09:54 UTC+3",
    "Tue, 01 Dec 2020 23:09:54 GMT",
    "Tue, 1 Dec 2020 23:09:54 +0300",
    "Tuesday, 01-Dec-20 23:09:54 GMT",
    "Tuesday, 01-Dec-70 23:09:54 GMT",
    "Tue Dec  1 23:09:54 2020",
    "Tue Dec 01 2020 23:09:54 GMT+0300",
    "Tue Dec 01 2020 23:09:54 GMT+0300 (Moscow Standard Time)",
    "Mon Dec 01 2020",
    "20210924T023104Z",
    "20210924T023104",
    "20210924T023104.5Z",
    "20210924T02:31:04",
    "20210924 023104",
    "20210924-023104",
    "2021-09-24T023104Z",
    "20210924023104",
    "20210924023104Z",
    "20210924",
    "202109",
    "2021-09",
    "2021/09",
    "2021-9-4",
    "2021/9/4 5:6:7",
    "2021.09.24 02:31:04",
    "2021:09:24 02:31:04",
    "2021 09 24 02:31:04",
    "2021-09/24",
    "2021-Sep-24",
    "2021.09.24",
    "2021 09 24",
    "2021:9/4",
    "2021",
    "2021-09-24T24:00:00",
    "2021-09-24T24:00:00Z",
    "2021-12-31 24:00:00",
    "2021-09-24 23:59:60",
    "2016-12-31T23:59:60Z",
    "2021-09-24 12:30:60",
    "2021-09-24 02:31:04 AM",
    "2021-09-24 02:31:04 PM",
    "2021-09-24 12:31:04 am",
    "2021-09-24 12:31:04pm",
    "2021-09-24 13:31:04 PM",
    "2021-09-24 2 PM",
    "09/24/2021 2:31 PM",
    "24/09/2021 02:31:04",
    "04/09/2021",
    "4.9.2021 02:31",
    "24-09-2021",
    "24-09-21",
    "24-Sep-2021 02:31:04",
    "24/September/2021",
    "24 Sep 2021",
    "24 sep 2021 02:31",
    "Sep 24, 2021",
    "Sep 24, 2021 02:31:04",
    "September 24 2021",
    "Sept 24 2021",
    "Septemberish 24 2021",
    "24th Sep 2021",
    "Sep 2021",
    "May 4 2021",
    "20210924, 02:31:04",
    "02:31:04, 2021-09-24",
    "02:31:04 24 Sep 2021",
    "2021-09-24,",
    "2021-09-24 5",
    "2021-09-24 5 7",
    "2021-09-24 05:31",
    "2021-09-24T05",
    "2021-09-24T",
    "2021-09-24Z",
    "2021-09-24+03:00",
    " 2021-09-24 02:31:04 ",
    "2021-09-24  02:31:04",
    "\\t2021-09-24 02:31:04",
    "2021-09-24 02:31:04x",
    "1632450664",
    "1632450664.5",
    "163245066",
    "163245066.25",
    "1632450664123",
    "1632450664123456",
    "1632450664123456789",
    "16324506641",
    "163245066412",
    "12345",
    "5",
    "-1",
    "+1632450664",
    "",
    " ",
    "x",
    "0000-00-00 00:00:00",
    "2021-02-29 00:00:00",
    "2021-13-01",
    "2021-00-01",
    "2021-09-24 25:00:00",
    "2021-09-24 23:60:00",
    "2021-09-24 23:59:61",
    "2021-09-24T23:09:54+99:99",
    "Sep 24 02:31:04",
    "02:31:04",
    "2021-03-28 02:30:00",
    "2021-10-31 02:30:00",
];

/// Edges of the types and of summer time.
const EDGES: [&str; 22] = [
    "1970-01-01 00:00:00Z",
    "1969-12-31 23:59:59Z",
    "2106-02-07 06:28:15Z",
    "2106-02-07 06:28:16Z",
    "1900-01-01 12:00:00",
    "1899-12-31 12:00:00",
    "1899-12-31 00:00:00Z",
    "2299-12-31 12:00:00",
    "2300-01-01 12:00:00",
    "9999-12-31 23:59:59",
    "0001-01-01 00:00:00",
    "1950-07-01 12:00:00",
    "2099-07-01 12:00:00",
    "2100-07-01 12:00:00",
    "2103-07-01 12:00:00",
    "2105-07-01 12:00:00",
    "2105-01-01 12:00:00",
    "2200-07-01 12:00:00",
    "2200-01-01 12:00:00",
    "2255-03-12 02:30:00",
    "2255-11-05 01:30:00",
    "2262-04-12 23:47:17Z",
];

const NUMBERS: [&str; 16] = [
    "0",
    "5",
    "-1",
    "-0",
    "1632450664",
    "1632450664.5",
    "1.632450664e9",
    "4294967295",
    "4294967296",
    "99999999999",
    "1632450664123",
    "1632450664123456",
    "1632450664123456789",
    "true",
    "null",
    "[]",
];

/// Why a time is something else here than in ClickHouse; see the list in `src/ndjson/mod.rs`.
fn exception_of_time(column: &str, value: &str) -> Option<&'static str> {
    let (is_second, is_finer) = (matches!(column, "seconds" | "berlin"), matches!(column, "millis" | "nanos"));
    let Some(text) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return exception_of_number(column, value);
    };
    match text {
        "2021-00-01" => Some("a month that does not exist is not replaced"),
        "2021-13-01" => (!is_second && !is_finer).then_some("a month that does not exist is not replaced"),
        _ if !is_second && !is_finer => None,
        "5" | "02:31:04" | "Sep 24 02:31:04" => Some("without a year it would be another day each year"),
        "0000-00-00 00:00:00" => Some("a date that does not exist is not replaced by this year's first"),
        "2021-09-24 5 7" => Some("the second hour does not replace the first"),
        "2021-09-24 25:00:00" | "2021-09-24 23:60:00" | "2021-09-24 23:59:61" => {
            Some("an hour, minute or second that does not exist is not carried over")
        }
        "2021-09-24T23:09:54+99:99" => Some("there is no such offset"),
        _ => {
            let year = text.split_once('-').filter(|(year, _)| year.len() == 4).and_then(|(year, _)| year.parse().ok());
            let year = year.unwrap_or(2000);
            let is_edge = matches!(text, "1969-12-31 23:59:59Z" | "2106-02-07 06:28:16Z");
            let outside = is_second && (is_edge || !(1969..=2106).contains(&year));
            // Nanoseconds that overflow are refused by both.
            let outside_finer = is_finer && !(1900..=2299).contains(&year) && (column == "millis" || year == 1899);
            (outside || outside_finer).then_some("what is outside of the type is not clamped; DateTime64 ends in 2299")
        }
    }
}

fn exception_of_number(column: &str, number: &str) -> Option<&'static str> {
    let unit = Some("a bare number's magnitude is its unit, whatever the version of ClickHouse");
    let clamped = Some("what is outside of the type is not clamped or wrapped");
    match (column, number) {
        (_, "0" | "true" | "null" | "[]") => None,
        ("day", "-0") => Some("-0 is 0"),
        ("day" | "day32", "1632450664.5" | "1.632450664e9") | (_, "-0") => None,
        ("day" | "day32", "5" | "-1") => None,
        ("day" | "day32", _) => clamped,
        ("seconds" | "berlin", "5" | "1632450664" | "4294967295") => None,
        ("seconds" | "berlin", "-1" | "4294967296" | "99999999999") => clamped,
        ("millis", "1632450664123") | ("nanos", "1632450664123456789") => None,
        _ => unit,
    }
}

#[test]
fn times_are_what_clickhouse_makes_of_them() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let texts = TEXTS.iter().chain(&EDGES).map(|text| format!("\"{text}\""));
    let values: Vec<String> = texts.chain(NUMBERS.map(str::to_owned)).collect();
    let lines = TIME_COLUMNS.iter().flat_map(|(column, _)| {
        values.iter().map(move |value| Line {
            json: format!("\"{column}\":{value}"),
            exception: exception_of_time(column, value),
        })
    });
    let columns: Vec<String> = TIME_COLUMNS.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    compare(clickhouse, &database, &columns.join(", "), &lines.collect::<Vec<_>>());
}

#[test]
fn keys_are_what_clickhouse_makes_of_them() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let lines = [
        (r#""abc":1,"ABC":2"#, None),
        (r#""ABC":2"#, None),
        (r#""Abc":2"#, None),
        (r#""abc":1,"Abc":2"#, None),
        (r#""foo":3"#, None),
        (r#""FOO":3"#, None),
        (r#""fOO":3,"abc":1"#, None),
        (r#""\u0046OO":3"#, None),
        (r#""Foo":3,"foo":4"#, None),
        (r#""foo":3,"Foo":4"#, None),
        (r#""foo":3,"FOO":4"#, None),
        (r#""Foo":3,"Foo":4"#, None),
        (r#""STRAße":5"#, None),
        (r#""STRASSE":5"#, None),
        (r#""STRAẞE":5"#, None),
        (r#""ÄB":6"#, None),
        (r#""äB":6"#, None),
        (r#""äb":6"#, None),
        (r#""ID":7,"foo":1"#, None),
        (r#""foo ":1"#, None),
        (r#""foo":null"#, None),
        (r#""other":{"foo":1}"#, None),
        (r#""A_Rather_LONG_Column_NAME":8"#, None),
        (r#""a_rather_long_column_name":8,"A_RATHER_LONG_COLUMN_NAME":9"#, None),
    ];
    let lines = lines.map(|(json, exception)| Line { json: json.to_owned(), exception });
    let columns = "abc UInt8, ABC UInt8, Foo UInt8, `straße` UInt8, `äb` UInt8, A_rather_long_column_name UInt8";
    compare(clickhouse, &database, columns, &lines);
}

#[test]
fn names_of_an_enum_are_what_clickhouse_makes_of_them() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let names = r"'t\tb' = 1, 'n\nb' = 2, 'z\0b' = 3, 'b\bb' = 4, 'f\fb' = 5, 'r\rb' = 6, 'a\x07b' = 7, 'e\x1bb' = 8,
        'v\x0bb' = 9, 'it\'s' = 10, 'back\\t' = 11, 'x, \'y\' = 3' = 12, 'ü' = 13, 'tb' = 14";
    let texts = [
        r"t\tb",
        "ttb",
        r"n\nb",
        "nnb",
        r"z\u0000b",
        "z0b",
        r"b\bb",
        "bbb",
        r"f\fb",
        "ffb",
        r"r\rb",
        "rrb",
        r"a\u0007b",
        "aab",
        r"e\u001bb",
        r"e\\eb",
        r"v\u000bb",
        "vvb",
        "it's",
        r"it\\'s",
        r"back\\t",
        r"back\t",
        "x, 'y' = 3",
        "ü",
        r"\u00fc",
        "tb",
        r"\tb",
        "1",
        "15",
    ];
    let lines = ["small", "large"]
        .map(|column| texts.map(|text| Line { json: format!("\"{column}\":\"{text}\""), exception: None }));
    let columns = format!("small Enum8('' = 0, {names}), large Enum16('' = 0, {names})");
    compare(clickhouse, &database, &columns, lines.as_flattened());
}

#[test]
fn an_address_is_never_replaced_by_another() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let ipv6 = format!("[::1]:{}", free_address().port());
    let create = |table: &str, kind: &str| {
        clickhouse
            .query(&format!("CREATE TABLE {database}.{table} (a UInt8, ip {kind}) ENGINE = MergeTree ORDER BY a"));
    };
    for (table, kind) in [("narrow", "IPv4"), ("nullable", "Nullable(IPv4)"), ("wide", "IPv6"), ("text", "String")] {
        create(table, kind);
    }
    for listen in [&ipv6, "127.0.0.1:0,[::1]:0", "[::]:0"] {
        let (status, log) = Server::expect_failure(clickhouse, &database, &["--table", "narrow", "--listen", listen]);
        assert!(!status.success() && log.contains("`ip`") && log.contains("Nullable(IPv4)"), "{listen}: {log}");
    }
    let server = Server::start(clickhouse, &database, &["--table", "narrow"]);
    assert_eq!(post(server.address(), "/api/narrow", b"{\"a\":1}").status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.narrow"), 1);
    assert!(server.stop().success());
    for (table, expected) in [("nullable", "\\N"), ("wide", "::1"), ("text", "::1")] {
        let server = Server::start(clickhouse, &database, &["--table", table, "--listen", &ipv6]);
        assert_eq!(post(ipv6.parse().unwrap(), &format!("/api/{table}"), b"{\"a\":1}").status, 200);
        server.wait_for_rows(clickhouse, &format!("{database}.{table}"), 1);
        assert_eq!(clickhouse.query(&format!("SELECT ip FROM {database}.{table} FORMAT TSV")).trim(), expected);
        assert!(server.stop().success());
    }
    assert_eq!(clickhouse.query(&format!("SELECT ip FROM {database}.narrow")).trim(), "127.0.0.1");
}

#[test]
fn a_change_of_the_servers_time_zone_is_followed_while_nothing_is_inserted() {
    let mut clickhouse = ClickHouse::start();
    clickhouse.restart_in_zone("Asia/Tokyo");
    let database = clickhouse.database();
    clickhouse.query(&format!("CREATE TABLE {database}.times (id UInt8, at DateTime) ENGINE = MergeTree ORDER BY id"));
    let server = Server::start(&clickhouse, &database, &["--table", "times"]);
    let send = |id: u8| {
        let event = format!("{{\"id\":{id},\"at\":\"2020-12-01 12:00:00\"}}");
        assert_eq!(post(server.address(), "/api/times", event.as_bytes()).status, 200);
    };
    send(1);
    server.wait_for_rows(&clickhouse, &format!("{database}.times"), 1);
    clickhouse.restart_in_zone("America/New_York");
    let said = "time zone: from Asia/Tokyo to America/New_York";
    wait_for(|| format!("the change is not seen:\n{}", server.log()), || server.log().contains(said).then_some(()));
    send(2);
    server.wait_for_rows(&clickhouse, &format!("{database}.times"), 2);
    let hours = clickhouse.query(&format!("SELECT toHour(at, 'UTC') FROM {database}.times ORDER BY id FORMAT TSV"));
    assert_eq!(hours, "3\n17\n");
}
