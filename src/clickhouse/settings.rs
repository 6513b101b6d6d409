//! The settings that are sent with every INSERT: fixed ones, and those of `--clickhouse-setting`.

use std::collections::{BTreeMap, HashSet};

use clap::ValueEnum;

/// Settings that make every INSERT a single block, read exactly as it was written and stored once.
/// They are sent with each INSERT because the profile of the ClickHouse user may set other values.
pub const FIXED: [(&str, &str); 29] = [
    // 1 by default since 26.3.
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    // Servers that know these two prefer them to `insert_deduplicate`. The second is for `INSERT …
    // SELECT`, which inserts converted rows.
    ("deduplicate_insert", "enable"),
    ("deduplicate_insert_select", "enable_even_for_bad_queries"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    // With 1, a view that throws would lose its rows without a word.
    ("materialized_views_ignore_errors", "0"),
    ("wait_end_of_query", "1"),
    ("send_progress_in_http_headers", "0"),
    ("max_insert_block_size", "1048449"),
    ("max_insert_block_size_bytes", "0"),
    ("min_insert_block_size_rows", "1048449"),
    ("min_insert_block_size_bytes", "1073741824"),
    ("use_strict_insert_block_limits", "0"),
    // `auto` since 26.8, and for plain INSERTs too: several threads would make several blocks.
    ("max_insert_threads", "1"),
    // ClickHouse reads the header in front of the rows, and refuses types that differ from the table's.
    ("input_format_with_names_use_header", "1"),
    ("input_format_with_types_use_header", "1"),
    ("input_format_binary_decode_types_in_binary_format", "0"),
    // An INSERT that reads its rows by `input()` names the types of the table, which may be of those that
    // ClickHouse refuses to make without an order.
    ("allow_suspicious_low_cardinality_types", "1"),
    ("allow_suspicious_fixed_string_types", "1"),
    ("allow_suspicious_variant_types", "1"),
    ("enable_time_time64_type", "1"),
    ("allow_experimental_nullable_tuple_type", "1"),
    // A JSON value is sent as its text, and a text in it that is a time becomes one in each form.
    ("date_time_input_format", "best_effort"),
    ("input_format_binary_read_json_as_string", "1"),
    ("input_format_native_allow_types_conversion", "0"),
    ("input_format_max_block_wait_ms", "0"),
    ("input_format_parallel_parsing", "0"),
    // With 1, what arrived of a connection that broke off would be stored, as a part of a block.
    ("input_format_connection_handling", "0"),
    ("distributed_foreground_insert", "1"),
];

/// Those that a query gets, too, which names the types of a block and reads rows of it.
pub const READING_ROWS: [&str; 6] = [
    "allow_suspicious_low_cardinality_types",
    "allow_suspicious_fixed_string_types",
    "allow_suspicious_variant_types",
    "enable_time_time64_type",
    "allow_experimental_nullable_tuple_type",
    "input_format_binary_read_json_as_string",
];

/// The setting with the token of an INSERT.
pub const TOKEN: &str = "insert_deduplication_token";

/// The one of [`FIXED`] that is a parameter of the HTTP interface and not a setting.
const PARAMETER: &str = "wait_end_of_query";

/// The names of the fixed settings.
pub fn fixed_names() -> impl Iterator<Item = &'static str> {
    FIXED.into_iter().map(|(name, _)| name)
}

/// The settings to send with an INSERT.
///
/// A fixed setting has the value that was `frozen` with the block, or its present value if it was not
/// fixed then. The operator's settings have their present values. Settings that the server does not
/// know are left out; to such a server they make no difference.
pub fn to_send(
    frozen: &BTreeMap<String, String>,
    operators: &[ClickHouseSetting],
    known: &HashSet<String>,
) -> BTreeMap<String, String> {
    let mut sent: BTreeMap<String, String> =
        FIXED.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in &mut sent {
        if let Some(frozen) = frozen.get(name) {
            value.clone_from(frozen);
        }
    }
    sent.extend(operators.iter().map(|setting| (setting.name.clone(), setting.value.clone())));
    sent.retain(|name, _| known.contains(name) || name == PARAMETER);
    sent
}

/// Further names that `--clickhouse-setting` refuses: aliases of [`FIXED`] ones, and the token.
const FIXED_TOO: [&str; 4] =
    [TOKEN, "insert_distributed_sync", "max_insert_block_size_rows", "enable_nullable_tuple_type"];

/// The format of the rows of an INSERT. For ClickHouse both formats give the same block under the
/// same token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InsertFormat {
    /// `RowBinaryWithNamesAndTypes`: rows are streamed from the spool unchanged.
    Rowbinary,
    /// `Native`: rows are converted to columns first.
    Native,
}

/// A `NAME=VALUE` of `--clickhouse-setting`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickHouseSetting {
    /// The name of the setting: one word that is not in [`FIXED`].
    pub name: String,
    /// The value, which only ClickHouse interprets.
    pub value: String,
}

impl std::str::FromStr for ClickHouseSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a setting looks like insert_quorum=2")?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("`{name}` can't be the name of a ClickHouse setting"));
        }
        if FIXED.iter().map(|(fixed, _)| fixed).chain(&FIXED_TOO).any(|fixed| *fixed == name) {
            return Err(format!(
                "`{name}` can't be changed: sluicegate sends it with a fixed value, so that rows are stored unchanged \
                 and only once"
            ));
        }
        Ok(Self { name: name.into(), value: value.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ROWS_PER_INSERT_MAX;

    #[test]
    fn a_setting_that_inserts_depend_on_can_not_be_set() {
        for (name, _) in FIXED {
            assert!(format!("{name}=1").parse::<ClickHouseSetting>().unwrap_err().contains(name), "{name}");
        }
        assert!("insert_deduplication_token=t".parse::<ClickHouseSetting>().is_err());
        assert_eq!("insert_quorum=2".parse::<ClickHouseSetting>().unwrap().value, "2");
    }

    #[test]
    fn what_is_sent_is_what_was_fixed_and_what_the_operator_says_now() {
        let known: HashSet<String> =
            ["async_insert", "max_insert_block_size", "insert_quorum"].map(str::to_owned).into();
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        // Of a block of before, the operator's setting was frozen too.
        let frozen = text(&[("max_insert_block_size", "7"), ("insert_quorum", "3"), ("gone", "1")]);
        let operators = ["insert_quorum=2".parse().unwrap(), "unknown=1".parse().unwrap()];
        let expected =
            [("async_insert", "0"), ("insert_quorum", "2"), ("max_insert_block_size", "7"), ("wait_end_of_query", "1")];
        assert_eq!(to_send(&frozen, &operators, &known), text(&expected));
        assert_eq!(to_send(&frozen, &[], &known).get("insert_quorum"), None);
    }

    #[test]
    fn a_block_is_cut_nowhere_below_the_largest_insert() {
        for (name, value) in FIXED.iter().filter(|(name, _)| name.ends_with("block_size") || name.ends_with("_rows")) {
            assert_eq!(*value, ROWS_PER_INSERT_MAX.to_string(), "{name}");
        }
    }
}
