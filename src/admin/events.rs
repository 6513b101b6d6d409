//! `GET /api/<table>`: the newest events from ClickHouse as NDJSON.
//!
//! Values are sent as query parameters (`{name:Type}` and `param_name`), never as part of the
//! statement. Column names are checked against the table, and quoted.

use super::{Admin, Page};
use crate::clickhouse::client::ClientError;
use crate::clickhouse::name::{TableName, quoted};
use crate::http::{Status, query_pairs};

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 10_000;

/// The page.
pub(super) fn page(admin: &Admin, table: &TableName, query: &str) -> Page {
    match newest(admin, table, query) {
        Ok(body) => Page { status: Status::Ok, content_type: "application/x-ndjson", body, allow: None },
        Err(Wrong::Query(message)) => Page::fault(Status::BadRequest, "bad_query", &message),
        Err(Wrong::ClickHouse(error)) => {
            Page::fault(Status::ServiceUnavailable, "clickhouse_failed", &error.to_string())
        }
    }
}

/// The reason why there is no result.
enum Wrong {
    Query(String),
    ClickHouse(ClientError),
}

fn newest(admin: &Admin, table: &TableName, query: &str) -> Result<String, Wrong> {
    let (mut limit, mut since, mut filters) = (LIMIT_DEFAULT, None, Vec::new());
    for pair in query_pairs(query) {
        let (name, value) = pair.map_err(|refusal| Wrong::Query(refusal.message().to_owned()))?;
        match name.as_ref() {
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or_else(|| Wrong::Query(format!("limit must be from 1 to {LIMIT_MAX}")))?;
            }
            "since" => since = Some(value.into_owned()),
            _ => filters.push((name.into_owned(), value.into_owned())),
        }
    }
    let columns = columns(admin, table)?;
    let mut conditions = Vec::new();
    let mut parameters = vec![
        ("output_format_json_quote_64bit_integers".to_owned(), "0".to_owned()),
        ("readonly".to_owned(), "2".to_owned()),
    ];
    for (index, (name, value)) in filters.into_iter().enumerate() {
        if !columns.contains(&name) {
            return Err(Wrong::Query(format!("the table has no column `{name}`")));
        }
        // Values are compared as text, so that a filter works for a column of any type.
        conditions.push(format!("toString({}) = {{filter{index}:String}}", quoted(&name)));
        parameters.push((format!("param_filter{index}"), escaped(&value)));
    }
    let asks_for_time = since.is_some();
    let has_time = columns.iter().any(|name| name == "server_time");
    if let Some(since) = since {
        if !has_time {
            return Err(Wrong::Query("the table has no column `server_time`, so `since` has no meaning".to_owned()));
        }
        conditions.push("server_time >= parseDateTime64BestEffort({since:String}, 3, 'UTC')".to_owned());
        parameters.push(("param_since".to_owned(), escaped(&since)));
    }
    let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let order = if has_time { " ORDER BY server_time DESC" } else { "" };
    let statement = format!("SELECT * FROM {table}{condition}{order} LIMIT {limit} FORMAT JSONEachRow");
    ask(admin, &statement, &parameters).map_err(|wrong| match wrong {
        // Only `since` can be malformed: filters are texts, and the limit is a number.
        Wrong::ClickHouse(ClientError::Refused { status: 400, .. }) if asks_for_time => {
            Wrong::Query("since must be a time, such as 2026-11-24T21:05:00Z or Unix seconds".to_owned())
        }
        wrong => wrong,
    })
}

/// Escapes the value of a parameter, which ClickHouse reads in TSV format.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
}

fn columns(admin: &Admin, table: &TableName) -> Result<Vec<String>, Wrong> {
    let statement = format!("DESCRIBE TABLE {table} FORMAT JSONCompactEachRow");
    let described = ask(admin, &statement, &[])?;
    Ok(described.lines().filter_map(|line| sonic_rs::from_str::<Vec<String>>(line).ok()?.into_iter().next()).collect())
}

/// Asks the first server that answers.
fn ask(admin: &Admin, statement: &str, parameters: &[(String, String)]) -> Result<String, Wrong> {
    let parameters: Vec<(&str, &str)> =
        parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut outcome = Err(ClientError::NoConnection("no server is configured".to_owned()));
    for server in &admin.clickhouse {
        outcome = server.query(statement, &parameters);
        if !outcome.as_ref().is_err_and(ClientError::is_no_answer) {
            break;
        }
    }
    outcome.map_err(Wrong::ClickHouse)
}
