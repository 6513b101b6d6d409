//! The columns of the table of events, as the tests and the benchmarks know them.

use sluicegate::schema::ColumnDescription;

/// Names and types of those that clients fill.
pub const OF_CLIENTS: [(&str, &str); 8] = [
    ("client_time", "DateTime('UTC')"),
    ("device_id", "String"),
    ("device_os", "LowCardinality(String)"),
    ("session", "String"),
    ("sequence", "Int64"),
    ("event", "LowCardinality(String)"),
    ("param_int", "Int64"),
    ("param_str", "String"),
];

/// The server's own, behind them.
pub const OF_SERVER: [(&str, &str); 2] = [("ip", "String"), ("server_time", "DateTime('UTC')")];

/// All of them as they stand in a CREATE TABLE.
pub fn definitions() -> String {
    let columns = OF_CLIENTS.iter().chain(&OF_SERVER);
    columns.map(|(name, type_name)| format!("{name} {type_name}")).collect::<Vec<_>>().join(", ")
}

/// Names of those that clients fill, as they stand in a SELECT.
pub fn names() -> String {
    OF_CLIENTS.map(|(name, _)| name).join(", ")
}

/// These columns and the server's own, as ClickHouse describes them.
pub fn described(columns: &[(&str, &str)]) -> Vec<ColumnDescription> {
    let describe = |(name, type_name): &(&str, &str)| ColumnDescription {
        name: (*name).to_owned(),
        type_name: (*type_name).to_owned(),
        default_kind: String::new(),
        default_expression: String::new(),
    };
    columns.iter().chain(&OF_SERVER).map(describe).collect()
}
