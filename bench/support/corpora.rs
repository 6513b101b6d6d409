//! Bodies from the usual to the awkward, the same in every run.

use super::random::Random;

/// Lines of each.
const EVENTS: usize = 60;
const RECORDED: &[u8] = include_bytes!("../corpus/events-30.ndjson");

/// Names and values of an event's fields, the values as JSON.
type Event = Vec<(String, String)>;

/// A body, and the table that it is for.
pub struct Corpus {
    /// What it is, for the table that is printed.
    pub name: &'static str,
    /// Its lines.
    pub body: Vec<u8>,
    /// The table of its events.
    pub table: Table,
}

/// A table, and so a struct of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The table of the sample events.
    Events,
    /// The same, each of whose fields may be missing.
    Sparse,
    /// 100 columns.
    Hundred,
    /// The sample's columns, and an Array of integers.
    Array,
    /// The sample's columns, and a Map from texts to integers.
    Map,
    /// The sample's columns, and a Tuple with names.
    Tuple,
}

/// All of them; the first is the one that the claim is about.
pub fn all() -> Vec<Corpus> {
    let random = &mut Random::new(0, 0);
    let of = |table, name, body| Corpus { name, body, table };
    let usual = |name, body| of(Table::Events, name, body);
    let mut all = vec![
        usual("15 % escapes or non-ASCII, 5 % another order", mixed(random)),
        usual("as recorded", RECORDED.into()),
        usual("random key order", lines(|index| shuffled(event(index), random))),
        usual("long strings", lines(|index| with(event(index), "param_str", &text(&"all work, no play ".repeat(300))))),
        usual("many unknown fields", lines(|index| [event(index), (0..40).map(unknown).collect()].concat())),
        usual("deep unknown values", lines(|index| [event(index), vec![("context".to_owned(), nested(100))]].concat())),
        usual("nothing but escapes", lines(|index| event(index).into_iter().map(escaped).collect())),
        of(Table::Hundred, "100 columns", lines(hundred)),
    ];
    // From a stream of chance of their own, so that the bodies above stay what they were.
    let random = &mut Random::new(0, 1);
    all.extend([
        usual("4 shapes, line by line", shapes(4, 1, random)),
        usual("8 shapes, line by line", shapes(8, 1, random)),
        usual("16 shapes, line by line", shapes(16, 1, random)),
        usual("4 shapes, 30 lines each", shapes(4, 30, random)),
        usual("8 shapes, 30 lines each", shapes(8, 30, random)),
        usual("16 shapes, 30 lines each", shapes(16, 30, random)),
        of(Table::Sparse, "each field present half the time", many_lines(|index| halved(event(index), random))),
        usual("random key order, keys never seen before", many_lines(|index| strange(event(index), index, random))),
        usual("white space as Python writes it", spaced(many_lines(event))),
        of(Table::Array, "an array of 10 integers", many_lines(|index| [event(index), vec![array(index)]].concat())),
        of(Table::Map, "a map of 10 entries", many_lines(|index| [event(index), vec![map(index)]].concat())),
        of(Table::Tuple, "a nested object", many_lines(|index| [event(index), vec![object(index)]].concat())),
    ]);
    all
}

/// The lines of `count` clients, `run` of each in turn. Each client has an order of keys and an unknown key of
/// its own.
fn shapes(count: usize, run: usize, random: &mut Random) -> Vec<u8> {
    let orders: Vec<Vec<usize>> = (0..count)
        .map(|_| {
            let mut order: Vec<usize> = (0..=event(0).len()).collect();
            shuffle(&mut order, random);
            order
        })
        .collect();
    many_lines(|index| {
        let shape = index / run % count;
        let value = if shape.is_multiple_of(2) { text("1.4.2") } else { index.to_string() };
        let fields = [event(index), vec![(format!("sdk_field_{shape}"), value)]].concat();
        orders[shape].iter().map(|field| fields[*field].clone()).collect()
    })
}

/// Each field half the time, but one of them always.
fn halved(event: Event, random: &mut Random) -> Event {
    let always = random.below(event.len() as u64) as usize;
    let kept = event.into_iter().enumerate().filter(|(index, _)| *index == always || random.one_in(2));
    kept.map(|(_, field)| field).collect()
}

/// What an adversary sends who knows what the encoder learns.
fn strange(event: Event, index: usize, random: &mut Random) -> Event {
    let new = (0..2).map(|number| (format!("k{:x}_{index}_{number}", random.next() >> 40), "1".to_owned()));
    shuffled(event.into_iter().chain(new).collect(), random)
}

/// With a space behind each comma and colon between values.
fn spaced(body: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(body).unwrap();
    text.replace("\":", "\": ").replace(",\"", ", \"").into_bytes()
}

fn array(index: usize) -> (String, String) {
    let elements: Vec<String> = (0..10).map(|element| ((index * 7919 + element * 977) % 100_000).to_string()).collect();
    ("list".to_owned(), format!("[{}]", elements.join(",")))
}

fn map(index: usize) -> (String, String) {
    let entries: Vec<String> =
        (0..10).map(|entry| format!("\"counter_{entry}\":{}", (index * 31 + entry * 977) % 10_000)).collect();
    ("counters".to_owned(), format!("{{{}}}", entries.join(",")))
}

fn object(index: usize) -> (String, String) {
    let value = format!(
        r#"{{"os":"iOS","model":"iPhone12,{}","memory":{},"locale":"de-DE","width":1170,"height":2532}}"#,
        index % 8,
        index * 4096 % 1_000_000
    );
    ("device".to_owned(), value)
}

/// Lines of the bodies in which one line is little like the next.
const MANY_EVENTS: usize = 480;

fn lines(event: impl FnMut(usize) -> Event) -> Vec<u8> {
    body_of(EVENTS, event)
}

fn many_lines(event: impl FnMut(usize) -> Event) -> Vec<u8> {
    body_of(MANY_EVENTS, event)
}

fn body_of(events: usize, mut event: impl FnMut(usize) -> Event) -> Vec<u8> {
    let mut body = String::new();
    for index in 0..events {
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
        ("client_time", text(&format!("2020-12-01 23:{:02}:{:02}", index % 60, index * 7 % 60))),
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
