//! Property tests of the fast path against its twin, the slow path: both must give the same rows, the
//! same rejections and the same messages.

use super::*;
use proptest::prelude::*;

const TABLE: [(&str, &str); 27] = [
    ("t", "DateTime('UTC')"),
    ("s", "String"),
    ("ip", "IPv6"),
    ("i", "Int8"),
    ("u", "UInt32"),
    ("f", "Float64"),
    ("b", "Bool"),
    ("id", "UUID"),
    ("server_time", "DateTime"),
    ("fixed", "FixedString(3)"),
    ("m", "DateTime64(3,'UTC')"),
    ("e", "Enum8('a'=1,'b'=2)"),
    ("n", "Nullable(Int64)"),
    ("d", "Nullable(Date)"),
    ("two", "UInt8"),
    ("TWO", "UInt8"),
    ("wide", "Int256"),
    ("dec", "Decimal(18, 3)"),
    ("bf", "BFloat16"),
    ("list", "Array(Nullable(Int16))"),
    ("texts", "Array(String)"),
    ("map", "Map(String, UInt64)"),
    ("days", "Map(Date, Array(Bool))"),
    ("pair", "Tuple(Float64, String)"),
    ("obj", "Tuple(a UInt8, b Nullable(String), s Array(Tuple(x Int8, y String)))"),
    ("any", "Variant(Array(String), Bool, Int64, String)"),
    ("sub", "Nested(a UInt8, b Map(String, String))"),
];

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => prop::sample::select(TABLE.map(|(name, _)| name.to_owned()).to_vec()),
        1 => "[a-z]{1,3}",
        2 => prop::sample::select(vec!["T", "S", "Ip", "ID", "Server_Time", "FIXED", "two", "Two", "TWO", "tWo"])
            .prop_map(str::to_owned),
        1 => Just("\\u0073".to_owned()),
        1 => prop::sample::select(vec!["\\ud83d", "s\\ude00", "\\ud83d\\ude00"]).prop_map(str::to_owned),
        1 => Just("a_long_key_that_belongs_to_no_column_of_the_table".to_owned()),
    ]
}

/// Values in the usual form of some type, values in other accepted forms, and invalid values.
pub(super) fn value() -> impl Strategy<Value = String> {
    let usual = prop::sample::select(vec![
        "\"2020-12-01 23:09:54\"",
        "\"2020-12-01T23:09:54Z\"",
        "\"2020-12-01 23:09:54.123\"",
        "\"2021-02-29 00:00:00\"",
        "\"2020-12-01\"",
        "\"2020-12-01T23:09:54.123456789012Z\"",
        "\"Tue, 01 Dec 2020 23:09:54 GMT\"",
        "\"2020-12-01T24:00:00Z\"",
        "\"1606864194123\"",
        "1606864194",
        "1606864194.5",
        "\"0287d9aa-4adf-4b37-a60f-3e9e645c821e\"",
        "\"a\"",
        "\"b\"",
        "\"abc\"",
        "\"abcd\"",
        "null",
        "true",
        "false",
        "\"\"",
        "\"1.2.3.4\"",
        "[]",
        "{}",
        "0",
        "-0",
        "-129",
        "1.5",
        "1e3",
        "00",
    ]);
    let nested = prop_oneof![
        prop::sample::select(vec![
            "[1,2,null]",
            "[ 1 , -2 ]",
            "[[1,\"x\"]]",
            "[1.5,\"x\"]",
            "[\"a\",\"\\u00e4\",5,{\"a\":1}]",
            "[\"\\ud800\"]",
            "{\"a\":1}",
            "{\"a\":\"7\",\"\\u0062\":2}",
            "{\"2020-12-01\":[true,false],\"2021-02-29\":[]}",
            "{\"2020-12-01\":[],\"2020-12-02\":[1]}",
            "{\"a\":1,\"b\":null,\"s\":[{\"x\":1,\"y\":\"z\"},{\"y\":\"z\",\"x\":1},[2,\"q\"],{}]}",
            "{\"s\":[],\"b\":\"x\",\"unknown\":{\"s\":[1]}}",
            "{\"b\":\"x\",\"a\":1,\"a\":2}",
            "{\"a\":1,\"a\":2}",
            "[{\"a\":1,\"b\":{\"k\":\"v\"}},null,{\"b\":{\"k\":1}}]",
            "[300]",
        ]),
        prop::sample::select(vec![
            "[1, {\"s\":[null]}]",
            "{\"a\":{\"s\":\"\\ud800\"}}",
            "[1,]",
            "{\"a\" 1}",
            "[\"\\q\"]",
        ])
    ];
    let inside = ("[1a]|\"[a-c]\"|null|1\\.5|\\[\\]|\\{\"a\":2\\}", "[ ,:]{1,2}", "[abxy]{1,2}");
    let inside = prop::collection::vec(inside, 0..4).prop_map(|parts| {
        let members: Vec<String> = parts.iter().map(|(value, _, key)| format!("\"{key}\":{value}")).collect();
        let elements: Vec<&str> = parts.iter().flat_map(|(value, between, _)| [&**value, &**between]).collect();
        [format!("{{{}}}", members.join(",")), format!("[{}", elements.concat().trim_end_matches(',').to_owned() + "]")]
    });
    prop_oneof![
        3 => (inside, any::<bool>()).prop_map(|(both, object)| both[usize::from(object)].clone()),
        8 => usual.prop_map(str::to_owned),
        2 => any::<i64>().prop_map(|value| value.to_string()),
        2 => (-300i32..300).prop_map(|value| value.to_string()),
        1 => any::<u64>().prop_map(|value| format!("\"{value}\"")),
        1 => any::<f64>().prop_map(|value| format!("{value:e}")),
        1 => (0u32..4_000_000_000).prop_map(|value| format!("\"{value}\"")),
        2 => "\"([ -!#-\\[\\]-~]|п|😀|\\\\n|\\\\u00e4|\\\\ud83d\\\\ude00){0,40}\"",
        1 => "\"([a-c]|п|\\\\ud83d|\\\\ude00|\\\\ufffd){0,4}\"",
        4 => nested.prop_map(str::to_owned),
        1 => "[-0-9.eE+\"a\\\\u{}:,]{0,8}",
    ]
}

/// White space, usually none.
pub(super) fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\t", "  "])
}

/// A line: usually one object, with varying white space.
fn line() -> impl Strategy<Value = String> {
    let fields = prop::collection::vec((key(), value()), 0..7);
    let object = (fields, space(), space(), space()).prop_map(|(fields, a, b, c)| {
        let fields: Vec<String> =
            fields.into_iter().map(|(key, value)| format!("{a}\"{key}\"{b}:{c}{value}")).collect();
        format!("{{{}{b}}}{c}", fields.join(&format!("{c},")))
    });
    prop_oneof![
        20 => object,
        1 => "[{}\\[\\]\":, a1\\\\]{0,12}",
        1 => Just(String::new()),
    ]
}

/// A body of lines, each repeated up to three times.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let repeated = (line(), 1usize..4).prop_map(|(line, times)| vec![line; times].join("\n"));
    prop::collection::vec(repeated, 0..8).prop_map(|lines| lines.join("\n").into_bytes())
}

/// Events with keys in the table's order, so that the fast path accepts most lines.
fn orderly_body() -> impl Strategy<Value = Vec<u8>> {
    let row = prop::collection::vec(prop::option::weighted(0.9, value()), TABLE.len());
    prop::collection::vec(row, 0..8).prop_map(|rows| {
        let lines = rows.into_iter().map(|row| {
            let fields = row
                .into_iter()
                .zip(TABLE)
                .filter_map(|(value, (name, _))| value.map(|value| format!("\"{name}\":{value}")));
            format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","))
        });
        lines.collect::<String>().into_bytes()
    })
}

/// Lines of a few clients, each with an order of keys and white space of its own. Each line leaves out some fields,
/// and a few have one twice.
fn lines_of_clients() -> impl Strategy<Value = String> {
    let keys = ["a", "bb", "a_longer_name_of_a_column", "d", "e", "f", "unknown", "ip"];
    let client = (Just(keys.to_vec()).prop_shuffle(), any::<bool>());
    let value = prop::sample::select(vec![
        "\"2020-12-01 23:09:54\"",
        "\"2020-12-02T00:00:00Z\"",
        "\"text\"",
        "\"a text that is longer than thirty-two bytes\"",
        "\"\\n\"",
        "\"é\"",
        "7",
        "-12345678",
        "123456789012",
        "07",
        "1.5",
        "null",
        "[1,2]",
        "[]",
    ]);
    let fields = prop::collection::vec((prop::bool::weighted(0.8), value), keys.len());
    let twice = prop::option::weighted(0.1, any::<(prop::sample::Index, prop::sample::Index)>());
    let line = (any::<prop::sample::Index>(), fields, twice);
    (prop::collection::vec(client, 1..5), prop::collection::vec(line, 0..40)).prop_map(move |(clients, lines)| {
        let mut body = String::new();
        for (client, fields, twice) in lines {
            let (order, spaced) = client.get(&clients);
            // Mostly what the columns take, so that most lines are accepted.
            let usual = |key: &str, value: &'static str| match (key, value) {
                ("a", "7" | "\"text\"" | "[]") => "\"2020-12-01 23:09:54\"",
                ("e", "7" | "\"text\"" | "null") => "[1,2]",
                ("f" | "a_longer_name_of_a_column", "[]" | "\"text\"" | "\"é\"") => "42",
                (_, value) => value,
            };
            let kept = order.iter().zip(&fields).filter(|(_, (is_kept, _))| *is_kept);
            let mut fields: Vec<_> = kept.map(|(key, (_, value))| (*key, usual(key, value))).collect();
            if let (Some((which, at)), false) = (twice, fields.is_empty()) {
                fields.insert(at.index(fields.len()), *which.get(&fields));
            }
            let (comma, colon) = if *spaced { (", ", ": ") } else { (",", ":") };
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\"{colon}{value}")).collect();
            body.push_str(&format!("{{{}}}\n", fields.join(comma)));
        }
        body
    })
}

fn same(body: &[u8]) {
    let plan = plan(&TABLE);
    let outcome = encode(&plan, body);
    if outcome.done.is_ok() {
        assert_eq!(decode(&plan, &outcome.rows).len(), outcome.count as usize);
    }
    // Replacing invalid text is what encoding does to lines that were repaired before.
    let replaced = encode_with(&plan, body, InvalidText::Replace);
    let lines: Vec<_> = body.split(|byte| *byte == b'\n').map(repair::line).collect();
    let repaired = encode(&plan, &lines.join(&b'\n'));
    assert_eq!((&replaced.rows, &replaced.report), (&repaired.rows, &repaired.report));
    assert!(replaced.report.errors.iter().all(|error| error.code != LineCode::InvalidUtf8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_paths_agree_on_bodies_of_lines(body in body()) {
        same(&body);
    }

    #[test]
    fn both_paths_agree_on_lines_in_the_tables_order(body in orderly_body()) {
        same(&body);
    }

    #[test]
    fn both_paths_agree_on_damaged_bodies(body in body(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = body;
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        same(&body);
    }

    #[test]
    fn both_paths_agree_on_any_bytes(body in prop::collection::vec(any::<u8>(), 0..200)) {
        same(&body);
    }

    /// What is learned from one client's lines must not show in those of another one, with fields that are missing
    /// or come twice, in order and out of it.
    #[test]
    fn both_paths_agree_on_lines_of_several_clients_in_turn(lines in lines_of_clients()) {
        let plan = plan(&[
            ("ip", "String"),
            ("a", "DateTime('UTC')"),
            ("bb", "String"),
            ("server_time", "DateTime"),
            ("a_longer_name_of_a_column", "Int64"),
            ("d", "Nullable(String)"),
            ("e", "Array(Int64)"),
            ("f", "Int64"),
        ]);
        encode(&plan, lines.as_bytes());
    }

    /// One field per line, so that the readers in place get values of their own type often.
    #[test]
    fn both_paths_agree_on_single_fields((_, type_name) in prop::sample::select(TABLE.to_vec()), value in value()) {
        let plan = plan(&[("x", type_name)]);
        let line = format!("{{\"x\":{value}}}\n");
        for invalid_text in [InvalidText::Reject, InvalidText::Replace] {
            encode_with(&plan, line.repeat(3).as_bytes(), invalid_text);
        }
    }

    #[test]
    fn both_paths_replace_the_same_text(inside in "([a-c]|\\\\ud83d|\\\\ude00|\\\\\\\\|п){0,5}", nested in any::<bool>()) {
        let value = if nested { format!("[\"{inside}\"]") } else { format!("\"{inside}\"") };
        // The fast path reads the first line, and leaves the second one for its key.
        let line = format!("{{\"x\":{value},\"y\":{value}}}\n{{\"x\":{value},\"y{inside}\":1}}\n");
        for invalid_text in [InvalidText::Reject, InvalidText::Replace] {
            encode_with(&plan(&[("x", "String")]), line.repeat(3).as_bytes(), invalid_text);
        }
    }
}
