//! Lines by chance for the columns of a table.

use sluicegate::rowbinary::DataType;

use super::reasons::*;
use super::tables::{Column, nested};
use super::values::{Maker, value};

/// A line with this `id`.
pub fn line(random: &mut Maker, columns: &[Column], id: usize) -> String {
    let elements = random.below(3) as usize;
    let mut members = vec![("\"id\"".to_owned(), id.to_string())];
    for column in columns.iter().filter(|column| column.is_sent) {
        if column.is_nested() {
            members.push((key(random, &column.name), nested(random, &column.data_type, elements)));
            continue;
        }
        if random.one_in(8) {
            continue;
        }
        let json = if random.one_in(25) {
            if matches!(column.data_type, DataType::Enum8(_) | DataType::Enum16(_)) {
                random.because(NULL_IN_ENUM);
            }
            "null".to_owned()
        } else {
            value(random, &column.data_type)
        };
        members.push((key(random, &column.name), json));
    }
    if random.one_in(5) {
        let unknown = ["1", "\"x\"", "[1,{\"id\":[]}]", "{\"c0\":1}", "null"];
        let mut json = unknown[random.below(unknown.len() as u64) as usize];
        if random.one_in(30) {
            random.because(UNPAIRED);
            json = "\"\\ud800\"";
        }
        members.push(("\"unknown\"".to_owned(), json.to_owned()));
    }
    if random.one_in(3) {
        for index in (1..members.len()).rev() {
            members.swap(index, random.below(index as u64 + 1) as usize);
        }
    }
    if random.one_in(60) {
        random.because(DUPLICATE);
        let again = members[random.below(members.len() as u64) as usize].clone();
        members.push(again);
    }
    let spaces = if random.one_in(5) { [" ", "\t "] } else { ["", ""] };
    let member = |(key, json): &(String, String)| format!("{key}{0}:{1}{json}", spaces[0], spaces[1]);
    let members: Vec<String> = members.iter().map(member).collect();
    format!("{{{}{}}}", spaces[0], members.join(&format!("{},{}", spaces[1], spaces[0])))
}

/// The key of a column; now and then with an escape, or in another case.
fn key(random: &mut Maker, name: &str) -> String {
    let quoted = serde_json::to_string(name).unwrap();
    match random.below(60) {
        0 => quoted.replace('c', "\\u0063"),
        1 => quoted.to_uppercase().replace("\\U", "\\u"),
        _ => quoted,
    }
}
