//! Lines that are not accepted are named by file and number, however many they are, and stored once in the quarantine.

use super::*;

/// Lines of which every one is bad whose number `is_bad` says.
fn lines(count: u64, is_bad: impl Fn(u64) -> bool) -> (String, Vec<u64>) {
    let line = |number: u64| match is_bad(number) {
        true => format!("{{\"event\":\"e\",\"param_int\":\"bad {number}\"}}\n"),
        false => format!("{{\"event\":\"e\",\"param_int\":{number}}}\n"),
    };
    ((1..=count).map(line).collect(), (1..=count).filter(|number| is_bad(*number)).collect())
}

fn quarantined(clickhouse: &ClickHouse, database: &str) -> String {
    let count = format!("SELECT count(), uniqExact(line) FROM {database}.events_quarantine FORMAT TSV");
    clickhouse.query(&count).trim().to_owned()
}

#[test]
fn every_rejected_line_is_named_once_where_a_reply_lists_a_hundred() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url) = (Files::new(), url(&server));
    // More than a reply lists, and in the middle more than a request may have.
    let is_bad = |number: u64| number.is_multiple_of(7) || (5000..7500).contains(&number);
    let (contents, bad) = lines(12_000, is_bad);
    let file = files.write("a", contents);
    let said = format!("{} lines accepted, {} rejected", 12_000 - bad.len(), bad.len());
    for connections in ["1", "4"] {
        let sent = run(&[&file, "--url", &url, "--batch-lines", "4000", "--connections", connections]).expect(1, &said);
        assert_eq!(sent.rejected(&file), bad);
        let first = sent.errors.lines().next().unwrap();
        assert!(first.starts_with(&format!("{file}:7: type_mismatch: ")), "{first}");
        server.wait_until_drained();
        assert_eq!(quarantined(clickhouse, &database), format!("{0}\t{0}", bad.len()));
    }
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 12_000 - bad.len() as u64);
    assert!(server.stop().success());
}

#[test]
fn a_file_of_bad_lines_alone_is_named_whole_and_a_dry_run_stores_nothing() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url) = (Files::new(), url(&server));
    let (contents, bad) = lines(1500, |_| true);
    let file = files.write("a", contents);
    let dry = format!("{url}?dry_run=1");
    for (url, stored) in [(&dry, "0\t0"), (&url, "1500\t1500")] {
        let sent = run(&[&file, "--url", url]).expect(1, "0 lines accepted, 1500 rejected");
        assert_eq!(sent.rejected(&file), bad);
        server.wait_until_drained();
        assert_eq!(quarantined(clickhouse, &database), stored);
    }
    assert!(server.stop().success());
}

#[test]
fn numbers_count_blank_lines_and_ends_of_any_kind() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let url = url(&server);
    let good = "{\"event\":\"e\"}";
    // The fourth request begins with blank lines and an array, which would make it one array.
    let contents = format!("{good}\r\n\n\r\nbad\r\n{good}\n[{good}]\n \n\n[1]\n[2]\n{good}\nbad");
    for lines in ["1", "2", "3", "5", "100"] {
        let sent = run_with(contents.as_bytes(), &["-", "--url", &url, "--batch-lines", lines, "--salt", lines]);
        let sent = sent.expect(1, "3 lines accepted, 5 rejected");
        assert_eq!(sent.rejected("-"), [4, 6, 9, 10, 12], "{lines}: {}", sent.errors);
        assert_eq!(sent.errors.matches(": not_an_object: ").count(), 3, "{}", sent.errors);
    }
    run_with(b"", &["-", "--url", &url]).expect(0, &accepted(0));
    run_with(b"\n\r\n\n", &["-", "--url", &url]).expect(0, &accepted(0));
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 15);
    assert!(server.stop().success());
}

#[test]
fn lines_that_are_too_long_are_named_and_those_around_them_are_stored() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &["--line-bytes-max", "4KiB", "--body-bytes-max", "64KiB"]);
    let (files, url) = (Files::new(), url(&server));
    let line =
        |number: u64, bytes: usize| format!("{{\"param_int\":{number},\"param_str\":\"{}\"}}\n", "x".repeat(bytes));
    // Too long for the server's lines, for its bodies, and for a batch.
    let long = [line(0, 10), line(1, 5000), line(1, 10), line(1, 100_000), line(2, 10), line(1, 300_000), line(3, 10)];
    let file = files.write("a", long.concat());
    let arguments = [&file, "--url", &url, "--batch-bytes", "200000"];
    let sent = run(&arguments).expect(1, "4 lines accepted, 3 rejected");
    assert_eq!(sent.rejected(&file), [2, 4, 6]);
    assert_eq!(sent.errors.matches(": line_too_long: ").count(), 3, "{}", sent.errors);
    // A whole request that is too large for the server is sent in halves, which have the same keys again.
    let many = files.write("many", (4..3000).map(|number| line(number, 100)).collect::<String>());
    for _ in 0..2 {
        run(&[&many, "--url", &url]).expect(0, &accepted(2996));
    }
    each_once(clickhouse, &database, &server, 3000);
    assert!(server.stop().success());
}

#[test]
fn what_is_in_front_of_damage_is_sent_and_what_is_no_ndjson_is_not() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url) = (Files::new(), url(&server));
    let packed = gzip(events(0..2000).as_bytes());
    let cut = files.write("cut.gz", &packed[..packed.len() / 2]);
    let state = files.path("state");
    let sent = run(&[&cut, "--url", &url, "--batch-lines", "100", "--state", &state]);
    let count = sent.said.split(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(sent.code == 2 && (1..2000).contains(&count), "{}{}", sent.said, sent.errors);
    let reason = format!("it can't be read behind line {count}: ");
    assert!(sent.errors.contains(&reason) && sent.errors.lines().count() == 1, "{}", sent.errors);
    each_once(clickhouse, &database, &server, count);
    // Whole again, it goes on there.
    files.write("cut.gz", packed);
    run(&[&cut, "--url", &url, "--batch-lines", "100", "--state", &state]).expect(0, &accepted(2000 - count));
    each_once(clickhouse, &database, &server, 2000);

    let array = files.write("array", format!("\n [\n{}]", events(0..3).replace("}\n", "},\n")));
    let sent = run(&[&array, "--url", &url]).expect(2, &accepted(0));
    assert!(sent.errors.contains("it is a JSON array") && sent.errors.contains("jq -c '.[]'"), "{}", sent.errors);
    let xz = files.write("a.xz", b"\xfd7zXZ\0...");
    assert!(run(&[&xz, "--url", &url]).expect(2, &accepted(0)).errors.contains("xz -dc FILE | sluicegate send -"));
    each_once(clickhouse, &database, &server, 2000);
    assert!(server.stop().success());
}

#[test]
fn a_file_takes_no_more_memory_than_its_batches_however_long_it_and_its_lines_are() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let (files, url) = (Files::new(), url(&server));
    let path = files.path("long.zst");
    // One line of 600 MiB between others.
    let mut encoder = zstd::stream::write::Encoder::new(std::fs::File::create(&path).unwrap(), 1).unwrap();
    encoder.write_all(events(0..10).as_bytes()).unwrap();
    let piece = vec![b'x'; 1 << 20];
    (0..600).for_each(|_| encoder.write_all(&piece).unwrap());
    encoder.write_all(format!("\n{}", events(10..100_000)).as_bytes()).unwrap();
    encoder.finish().unwrap();
    // What a process may have of its own, in KiB.
    let script = "ulimit -d 131072; exec \"$0\" send \"$1\" --url \"$2\" --batch-bytes 1MiB";
    let mut limited = Command::new("bash");
    limited.args(["-c", script, env!("CARGO_BIN_EXE_sluicegate"), &path, &url]);
    let sent = Sent::of(limited.output().unwrap()).expect(1, "100000 lines accepted, 1 rejected");
    assert_eq!(sent.rejected(&path), [11]);
    each_once(clickhouse, &database, &server, 100_000);
    assert!(server.stop().success());
}
