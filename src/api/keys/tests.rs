//! Tests of key files and of the look-up.

use super::*;
use crate::http::{HeadLimits, NO_HEADERS, Parsed, parse_head};

const SECRET: &str = "0123456789abcdef";

fn keys(text: &str) -> Keys {
    Keys::parse(text, None, None).unwrap()
}

fn authorize_to(keys: &Keys, target: &str, fields: &str, table: &str) -> Result<Option<Writer>, &'static str> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut slots = NO_HEADERS;
    let limits = HeadLimits { head_bytes_max: 4096, headers_max: 16 };
    match parse_head(head.as_bytes(), &limits, &mut slots) {
        Parsed::Done(head) => keys.authorize(&head, table).map_err(|fault| fault.code),
        other => panic!("{other:?}"),
    }
}

fn authorize(keys: &Keys, target: &str, fields: &str) -> Result<Option<Writer>, &'static str> {
    authorize_to(keys, target, fields, "events")
}

fn name(keys: &Keys, writer: Result<Option<Writer>, &'static str>) -> String {
    keys.owners().get(writer.unwrap().unwrap().owner).name.to_string()
}

#[test]
fn each_way_to_present_a_key_works_and_the_first_one_decides() {
    let keys = keys(&format!("{SECRET} name=web\nan+other/key=~ name=app\n"));
    for (target, fields) in [
        ("/", "Authorization: Bearer 0123456789abcdef\r\n"),
        ("/", "authorization: bearer   0123456789abcdef \r\n"),
        ("/", "X-Write-Key: 0123456789abcdef\r\n"),
        ("/", "Authorization: Basic eDp5\r\nX-Write-Key: 0123456789abcdef\r\n"),
        ("/?key=0123456789abcdef", ""),
        ("/?ack=disk&key=%30123456789abcdef&key=x", ""),
        ("/?bad=%&key=0123456789abcdef", ""),
        ("/?key=x", "X-Write-Key: 0123456789abcdef\r\n"),
        ("/", "Authorization: Bearer 0123456789abcdef\r\nX-Write-Key: x\r\n"),
    ] {
        assert_eq!(name(&keys, authorize(&keys, target, fields)), "web", "{target} {fields}");
    }
    assert_eq!(name(&keys, authorize(&keys, "/?key=an%2Bother/key=~", "")), "app");
    assert_eq!(name(&keys, authorize(&keys, "/", "Authorization: Bearer an+other/key=~\r\n")), "app");
}

#[test]
fn a_missing_key_is_401_and_a_wrong_one_403() {
    let keys = keys(SECRET);
    for (target, fields) in [
        ("/", ""),
        ("/?keys=0123456789abcdef", ""),
        ("/", "Authorization: Basic eDp5\r\n"),
        ("/", "Authorization: Bearer \r\n"),
    ] {
        assert_eq!(authorize(&keys, target, fields), Err("missing_key"), "{target} {fields}");
    }
    let long = format!("X-Write-Key: {}\r\n", "x".repeat(1000));
    for (target, fields) in [
        ("/?key=", ""),
        ("/?key=0123456789abcde", ""),
        ("/?key=0123456789abcdeF", ""),
        ("/", "X-Write-Key:\r\n"),
        ("/", long.as_str()),
        ("/?key=0123456789abcdef", "Authorization: Bearer 0123456789abcdef0\r\n"),
    ] {
        assert_eq!(authorize(&keys, target, fields), Err("wrong_key"), "{target} {fields}");
    }
    assert_eq!(authorize(&Keys::open(None), "/", ""), Ok(None));
    assert_eq!((MISSING.status.code(), WRONG.status.code(), WRONG_TABLE.status.code()), (401, 403, 403));
}

#[test]
fn a_key_in_the_file_may_be_its_hash_and_be_for_some_tables() {
    // printf 0123456789abcdef | sha256sum
    let hash = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
    let by_hash =
        keys(&format!("# keys\r\n\r\n sha256:{}\tname=web tables=hits,events # of May\r\n", hash.to_uppercase()));
    let fields = format!("X-Write-Key: {SECRET}\r\n");
    assert_eq!(name(&by_hash, authorize(&by_hash, "/", &fields)), "web");
    assert_eq!(authorize_to(&by_hash, "/", &fields, "hits").map(|writer| writer.is_some()), Ok(true));
    assert_eq!(authorize_to(&by_hash, "/", &fields, "hit"), Err("wrong_table"));
    assert_eq!(authorize(&by_hash, "/", &format!("X-Write-Key: sha256:{hash}\r\n")), Err("wrong_key"));
    assert_eq!(by_hash.warnings().count(), 0);
}

#[test]
fn a_wrong_line_is_named_by_its_number_and_nothing_of_it_is_repeated() {
    let good = "0123456789abcdef name=a rate=5/s\n# c\n\n";
    for wrong in [
        "SECRETSECRET SECRETSECRET",
        "SECRET nam=x",
        "SECRET name=",
        "SECRET name=SEC/RET",
        "SECRET name=a name=b",
        "SECRET tables=SEC,,RET",
        "SECRET tables=",
        "SECRET rate=SECRET",
        "SECRET rate=0/s",
        "SECRET rate=1/s rate=1/s",
        "SECRET name=a",
        "SECRET name=a rate=6/s",
        "0123456789abcdef name=SECRET",
        "sha256:SECRET",
        "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929g",
        "SECR\u{c9}T",
        &"SECRET".repeat(100),
    ] {
        let error = Keys::parse(&format!("{good}{wrong}\n"), None, None).unwrap_err();
        assert_eq!(error.line, Some(4), "{wrong}: {error}");
        assert!(!error.to_string().contains("SECR"), "{wrong}: {error}");
        assert!(error.to_string().starts_with("line 4: ") && error.to_string().len() > 20, "{error}");
    }
    for empty in ["", "\n", "# only\n  # comments"] {
        assert!(Keys::parse(empty, None, None).unwrap_err().to_string().contains("no key"), "{empty:?}");
    }
    let many: String = (0..=limits::WRITE_KEYS_MAX).map(|number| format!("k{number} name=a\n")).collect();
    assert_eq!(Keys::parse(&many, None, None).unwrap_err().line, Some(limits::WRITE_KEYS_MAX + 1));
}

#[test]
fn several_keys_of_a_name_share_its_rate_counter_and_identity_across_files() {
    let rate = "5/s".parse().ok();
    let first = Keys::parse("key-one name=web\nkey-two name=web\nkey-three\nkey-four\n", rate, None).unwrap();
    let writer = |keys: &Keys, key: &str| authorize(keys, &format!("/?key={key}"), "").unwrap().unwrap();
    let web = writer(&first, "key-one");
    assert_eq!((web, web.rate), (writer(&first, "key-two"), rate));
    let (three, four) = (writer(&first, "key-three").owner, writer(&first, "key-four").owner);
    assert!(three != four && three != web.owner);
    let identity = |owner: OwnerId| first.owners().get(owner).identity;
    assert!(identity(three) != identity(four) && identity(three) != identity(web.owner));
    assert!([three, four, web.owner].into_iter().all(|owner| identity(owner).is_some()));
    for (owner, events) in [(three, 2), (four, 3), (web.owner, 4)] {
        first.owners().get(owner).count_accepted(events);
    }
    let second = Keys::parse("key-five name=web rate=9/s\nkey-four\n", rate, Some(&first)).unwrap();
    assert_eq!(writer(&second, "key-five"), Writer { owner: web.owner, rate: "9/s".parse().ok() });
    assert_eq!(writer(&second, "key-four").owner, four);
    assert_eq!(authorize(&second, "/?key=key-one", ""), Err("wrong_key"));
    assert_eq!(second.owners().accepted().into_iter().collect::<Vec<_>>(), [("", 5), ("web", 4)]);
    // A broken file adds no name.
    assert!(Keys::parse("key-six name=new\nkey-seven bad\n", rate, Some(&second)).is_err());
    assert_eq!(second.owners().accepted().len(), 2);
}

#[test]
fn keys_that_can_be_guessed_are_warned_of_by_their_lines() {
    let keys = keys("short\n0123456789abcdef\n\n0123456789abcde\n");
    let warnings: Vec<String> = keys.warnings().collect();
    assert!(warnings.len() == 2 && warnings[0].contains("line 1") && warnings[1].contains("line 4"), "{warnings:?}");
    assert!(!warnings.concat().contains("short\u{20}") && !format!("{keys:?}").contains("01234"), "{keys:?}");
}

#[test]
fn names_are_bounded_over_all_files_since_the_start() {
    let owners = Owners::new(2);
    let ids = [owners.add("a", [1; 32]), owners.add("b", [2; 32])];
    assert!(ids.iter().all(Option::is_some) && ids[0] != ids[1]);
    assert_eq!(owners.add("c", [3; 32]), None);
    assert_eq!(owners.add("a", [1; 32]), ids[0]);
    assert_eq!(&*owners.get(ids[1].unwrap()).name, "b");
    assert_eq!(owners.get(OwnerId::EVERYONE).identity, None);
}
