//! Tables by chance, with their lines, in the server's database and in that of the oracle.

use std::fmt::Write;

use sluicegate::rowbinary::DataType;

use super::lines::line;
use super::types::{self, spell};
use super::values::{Maker, array, value};
use crate::support::{ClickHouse, Random, Server, post};

/// Lines of one request: the reply lists so many errors.
const LINES_AT_ONCE: usize = 100;

/// A generated table.
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    pub lines: Vec<Line>,
}

/// A generated column.
pub struct Column {
    pub name: String,
    pub data_type: DataType,
    /// What stands behind its type in CREATE TABLE.
    pub default: String,
    /// False for what no client fills.
    pub is_sent: bool,
    /// False for an EPHEMERAL column.
    pub is_stored: bool,
}

/// A generated line.
pub struct Line {
    pub json: String,
    /// Why it may be something else in ClickHouse.
    pub reasons: Vec<&'static str>,
}

/// A line that is not the same in both tables.
pub struct Difference {
    pub line: usize,
    /// Whether it is a row in ours and in theirs.
    pub found: [bool; 2],
    /// The columns that differ, if it is a row in both.
    pub columns: Vec<usize>,
}

impl Column {
    fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self { name: name.into(), data_type, default: String::new(), is_sent: true, is_stored: true }
    }

    pub fn quoted(&self) -> String {
        format!("`{}`", self.name.replace('\\', "\\\\").replace('`', "\\`"))
    }

    /// True for an array of a Nested column.
    pub fn is_nested(&self) -> bool {
        self.name.contains('.')
    }
}

impl Table {
    /// The table of this number with so many lines; the same for the same seed.
    pub fn generate(seed: u64, number: u64, lines: u64) -> Self {
        let mut random = Random::new(seed, number);
        let mut columns = columns(&mut random);
        let mut maker = Maker::new(random);
        for column in &mut columns {
            if column.default.is_empty() && column.is_sent && !column.is_nested() && maker.one_in(6) {
                column.default = default(&mut maker, &column.data_type);
            }
        }
        maker.take_reasons();
        let line = |id| Line { json: line(&mut maker, &columns, id), reasons: maker.take_reasons() };
        let lines = (0..lines as usize).map(line).collect();
        Self { name: format!("t{number}"), columns, lines }
    }

    pub fn create(&self, clickhouse: &ClickHouse, database: &str) {
        let mut columns = "id UInt32".to_owned();
        for column in &self.columns {
            write!(columns, ", {} {}{}", column.quoted(), spell(&column.data_type), column.default).unwrap();
        }
        clickhouse.query(&format!(
            "CREATE TABLE {database}.{} ({columns}) ENGINE = MergeTree ORDER BY id \
             SETTINGS allow_suspicious_low_cardinality_types = 1, enable_time_time64_type = 1, \
             allow_suspicious_variant_types = 1",
            self.name
        ));
    }

    /// Sends the lines to the server: whether it has taken each.
    pub fn send(&self, server: &Server) -> Vec<bool> {
        let mut taken = Vec::with_capacity(self.lines.len());
        for lines in self.lines.chunks(LINES_AT_ONCE) {
            let lines: Vec<&str> = lines.iter().map(|line| &*line.json).collect();
            let reply = post(server.address(), &format!("/api/{}", self.name), lines.join("\n").as_bytes());
            let reply: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
            let first = taken.len();
            taken.resize(first + lines.len(), true);
            for error in reply["errors"].as_array().into_iter().flatten() {
                taken[first + error["line"].as_u64().unwrap() as usize - 1] = false;
            }
            let accepted = taken[first..].iter().filter(|taken| **taken).count();
            assert_eq!(reply["accepted"], accepted, "{}: {reply}", self.name);
        }
        taken
    }

    /// What the server says of a line.
    pub fn dry_run(&self, server: &Server, json: &str) -> String {
        post(server.address(), &format!("/api/{}?dry_run=1", self.name), json.as_bytes()).text()
    }

    /// Inserts the lines as `JSONEachRow`. After an error ClickHouse goes on with the next line if it may, but
    /// then some columns have their values in other rows: so lines without a reason that the server has taken
    /// are inserted without such errors.
    pub fn insert(&self, clickhouse: &ClickHouse, database: &str, taken: &[bool]) {
        let lines = || self.lines.iter().zip(taken);
        let is_certain = |(line, taken): &(&Line, &bool)| **taken && line.reasons.is_empty();
        let jsons = |(line, _): (&Line, &bool)| line.json.clone();
        let certain: Vec<String> = lines().filter(is_certain).map(jsons).collect();
        let others: Vec<String> = lines().filter(|line| !is_certain(line)).map(jsons).collect();
        self.insert_halves(clickhouse, database, &certain, 0);
        self.insert_halves(clickhouse, database, &others, 100_000);
    }

    /// Inserts the lines; after an error, their halves.
    fn insert_halves(&self, clickhouse: &ClickHouse, database: &str, jsons: &[String], errors_max: u32) {
        let inserted = self.try_insert(clickhouse, database, jsons, errors_max);
        if let (Err(_), 2..) = (inserted, jsons.len()) {
            let (one, other) = jsons.split_at(jsons.len() / 2);
            self.insert_halves(clickhouse, database, one, errors_max);
            self.insert_halves(clickhouse, database, other, errors_max);
        }
    }

    pub fn try_insert(
        &self,
        clickhouse: &ClickHouse,
        database: &str,
        jsons: &[String],
        errors_max: u32,
    ) -> Result<String, String> {
        // Without a list of columns ClickHouse takes a value for an EPHEMERAL column for an unknown field.
        let sent = self.columns.iter().filter(|column| column.is_sent);
        let columns: String = sent.map(|column| format!(", {}", column.quoted())).collect();
        clickhouse.try_query(&format!(
            "INSERT INTO {database}.{} (id{columns}) SETTINGS async_insert = 0, \
             date_time_input_format = 'best_effort', input_format_skip_unknown_fields = 1, \
             input_format_null_as_default = 1, input_format_parallel_parsing = 0, \
             input_format_allow_errors_num = {errors_max} FORMAT JSONEachRow\n{}\n",
            self.name,
            // Some values are read with a fixed length: they must not reach the next line.
            jsons.join(&format!("{}\n", " ".repeat(100)))
        ))
    }

    /// The lines that are other rows in the two databases, or rows in one of them.
    pub fn differences(&self, clickhouse: &ClickHouse, databases: [&str; 2]) -> Vec<Difference> {
        let stored: Vec<usize> = (0..self.columns.len()).filter(|index| self.columns[*index].is_stored).collect();
        let cell = |index: &usize| {
            let column = &self.columns[*index];
            // The types in a JSON and in a Dynamic depend on the rows before.
            let spelled = spell(&column.data_type);
            match spelled.contains("JSON") || spelled.contains("Dynamic") {
                true => format!("toString({})", column.quoted()),
                false => format!("formatRow('RowBinary', {})", column.quoted()),
            }
        };
        let cells = stored.iter().map(cell).collect::<Vec<_>>().join(", ");
        let [ours, theirs] = databases
            .map(|database| format!("SELECT id, [{cells}] AS cells, true AS found FROM {database}.{}", self.name));
        let count = stored.len();
        let differing = clickhouse.query(&format!(
            "SELECT id, o.found, t.found, arrayFilter((n, x, y) -> x != y, range(0, {count}), \
             arrayResize(o.cells, {count}), arrayResize(t.cells, {count})) \
             FROM ({ours}) AS o FULL JOIN ({theirs}) AS t USING id \
             WHERE o.found != t.found OR o.cells != t.cells ORDER BY id FORMAT JSONCompactEachRow"
        ));
        let parse = |row: &str| {
            let (line, ours, theirs, places): (usize, bool, bool, Vec<usize>) = serde_json::from_str(row).unwrap();
            let columns = if ours && theirs { places.iter().map(|place| stored[*place]).collect() } else { Vec::new() };
            Difference { line, found: [ours, theirs], columns }
        };
        differing.lines().map(parse).collect()
    }
}

fn columns(random: &mut Random) -> Vec<Column> {
    let mut columns = Vec::new();
    for index in 0..1 + random.below(8) {
        let name = match random.below(20) {
            0 => format!("c d{index}"),
            1 => format!("c`{index}"),
            2 => format!("c\\é{index}"),
            _ => format!("c{index}"),
        };
        let mut column = Column::new(name, types::of_column(random));
        column.is_sent = column.data_type != DataType::AggregateFunction;
        columns.push(column);
    }
    if random.one_in(6) {
        for part in ["a", "b", "c"].iter().take(2 + random.below(2) as usize) {
            columns.push(Column::new(format!("nested.{part}"), DataType::Array(Box::new(types::of_element(random)))));
        }
    }
    if random.one_in(8) {
        let number =
            |name, default: &str| Column { default: default.to_owned(), ..Column::new(name, DataType::Unsigned(4)) };
        columns.push(Column { is_stored: false, ..number("fed", " EPHEMERAL 7") });
        columns.push(number("sum", " DEFAULT fed + id"));
        columns.push(Column { is_sent: false, ..number("made", " MATERIALIZED sum * 2") });
        columns.push(Column { is_sent: false, ..number("named", " ALIAS made + 1") });
    }
    columns
}

/// A default expression; none for a type that ClickHouse does not extract from JSON.
fn default(maker: &mut Maker, data_type: &DataType) -> String {
    let expression = match data_type {
        DataType::String => "concat('d', toString(id))".to_owned(),
        DataType::Unsigned(_) | DataType::Signed(_) => "id % 100".to_owned(),
        DataType::Decimal { .. } => "(id % 2) / 4".to_owned(),
        other if spell(other).contains("Decimal") => return String::new(),
        other if spell(other).contains("BFloat16") || spell(other).contains("Enum") => return String::new(),
        other if spell(other).contains("JSON(") => return String::new(),
        other if spell(other).replace("Map(String,", "").contains("Map(") => return String::new(),
        other => {
            let literal = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
            let json = format!("{{\"v\":{}}}", value(maker, other));
            format!("JSONExtract('{}', 'v', '{}')", literal(&json), literal(&spell(other)))
        }
    };
    format!(" DEFAULT {expression}")
}

/// An array of a Nested column: mostly as long as its siblings, which have `count` elements.
pub fn nested(maker: &mut Maker, data_type: &DataType, count: usize) -> String {
    let count = if maker.one_in(150) { count + 1 } else { count };
    match data_type {
        DataType::Array(inner) => array(maker, inner, count),
        other => value(maker, other),
    }
}
