//! Bodies from the usual to the awkward, the same in every run.

use super::random::Random;

/// Lines of each.
const EVENTS: usize = 60;
const RECORDED: &[u8] = include_bytes!("../corpus/events-30.ndjson");

/// Names and values of an event's fields, the values as JSON.
type Event = Vec<(String, String)>;

/// A body, and which of the two tables it is for.
pub struct Corpus {
    /// What it is, for the table that is printed.
    pub name: &'static str,
    /// Its lines.
    pub body: Vec<u8>,
    /// Made for the table of 100 columns.
    pub is_wide: bool,
}

/// All of them; the first is the one that the claim is about.
pub fn all() -> Vec<Corpus> {
    let random = &mut Random::new(0, 0);
    let usual = |name, body| Corpus { name, body, is_wide: false };
    vec![
        usual("15 % escapes or non-ASCII, 5 % another order", mixed(random)),
        usual("as recorded", RECORDED.into()),
        usual("random key order", lines(|index| shuffled(event(index), random))),
        usual("long strings", lines(|index| with(event(index), "param_str", &text(&"all work, no play ".repeat(300))))),
        usual("many unknown fields", lines(|index| [event(index), (0..40).map(unknown).collect()].concat())),
        usual("deep unknown values", lines(|index| [event(index), vec![("context".to_owned(), nested(100))]].concat())),
        usual("nothing but escapes", lines(|index| event(index).into_iter().map(escaped).collect())),
        Corpus { name: "100 columns", body: lines(hundred), is_wide: true },
    ]
}

fn lines(mut event: impl FnMut(usize) -> Event) -> Vec<u8> {
    let mut body = String::new();
    for index in 0..EVENTS {
        let fields: Vec<String> = event(index).iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        body.push_str(&format!("{{{}}}\n", fields.join(",")));
    }
    body.into_bytes()
}

fn text(text: &str) -> String {
    format!("\"{text}\"")
}

fn event(index: usize) -> Event {
    let one_of = |list: &[&str]| text(list[index % list.len()]);
    let values = [
        ("client_time", text(&format!("2020-12-01 23:{index:02}:{:02}", index * 7 % 60))),
        ("device_id", text(&format!("0000{index:04x}-0000-4000-A000-000000000000"))),
        ("device_os", text("iOS 13.5.1")),
        ("session", text("hoIf9bRIYQAk1pP1")),
        ("sequence", index.to_string()),
        ("event", one_of(&["app_start", "app_stop", "level_start", "onCreate", "onRotate"])),
        ("param_int", (index * index * 977 % 1_000_000).to_string()),
        ("param_str", one_of(&["", "some text", "lorem ipsum dolor", "a_value_of_middling_length"])),
    ];
    values.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Of 20 lines three hold what can't be copied as it stands, and one has its keys in another order.
fn mixed(random: &mut Random) -> Vec<u8> {
    let odd = [r#""line one\nline two""#, r#""\u043f\u0440\u0438\u0432\u0435\u0442""#, "\"grüße aus Köln\""];
    let mut events: Vec<Event> = (0..EVENTS)
        .map(|index| match index % 20 {
            3 | 9 | 15 => with(event(index), "param_str", odd[index % odd.len()]),
            19 => shuffled(event(index), random),
            _ => event(index),
        })
        .collect();
    shuffle(&mut events, random);
    lines(|index| events[index].clone())
}

fn with(mut event: Event, key: &str, value: &str) -> Event {
    for (name, old) in &mut event {
        if name == key {
            *old = value.to_owned();
        }
    }
    event
}

fn shuffled(mut event: Event, random: &mut Random) -> Event {
    shuffle(&mut event, random);
    event
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last as u64 + 1) as usize);
    }
}

fn unknown(index: usize) -> (String, String) {
    let value = match index % 4 {
        0 => text("a value that nobody stores"),
        1 => index.to_string(),
        2 => "true".to_owned(),
        _ => "12.5".to_owned(),
    };
    (format!("unknown_{index}"), value)
}

fn nested(depth: usize) -> String {
    (0..depth).fold("1".to_owned(), |inner, level| match level % 2 {
        0 => format!("[{inner},\"text\"]"),
        _ => format!("{{\"key\":{inner},\"other\":2}}"),
    })
}

/// Every character of a string as `\uXXXX`.
fn escaped((key, value): (String, String)) -> (String, String) {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return (key, value) };
    let escapes: String = inner.chars().map(|character| format!("\\u{:04x}", u32::from(character))).collect();
    (key, text(&escapes))
}

/// 50 texts and 50 integers in turn.
fn hundred(index: usize) -> Event {
    (0..50)
        .flat_map(|column| {
            [
                (format!("t{column:02}"), text(&format!("value {} of {column}", index * 31 % 17))),
                (format!("n{column:02}"), (index * column * 7919).to_string()),
            ]
        })
        .collect()
}
