//! Settings that ClickHouse gets with every insert: those of the server, and those of the operator.

use std::collections::{BTreeMap, HashSet};

use clap::ValueEnum;

/// What an insert's being one block, read as it was written, and stored once depends on. They are sent with each
/// one because a user's profile may say otherwise.
pub const FIXED: [(&str, &str); 19] = [
    // 1 by default since 26.3.
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    // Where they are known, they beat the one above; the second is for rows that are converted.
    ("deduplicate_insert", "enable"),
    ("deduplicate_insert_select", "force_enable"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("wait_end_of_query", "1"),
    ("send_progress_in_http_headers", "0"),
    ("max_insert_block_size", "1048449"),
    ("max_insert_block_size_bytes", "0"),
    ("min_insert_block_size_rows", "1048449"),
    ("min_insert_block_size_bytes", "1073741824"),
    ("use_strict_insert_block_limits", "0"),
    // The header in front of the rows is read, and a type in it that is not the table's refused.
    ("input_format_with_names_use_header", "1"),
    ("input_format_with_types_use_header", "1"),
    ("input_format_binary_decode_types_in_binary_format", "0"),
    ("input_format_native_allow_types_conversion", "0"),
    ("input_format_max_block_wait_ms", "0"),
    ("input_format_parallel_parsing", "0"),
    ("distributed_foreground_insert", "1"),
];

/// The setting that has an INSERT's token.
pub const TOKEN: &str = "insert_deduplication_token";

/// A parameter of ClickHouse's HTTP interface among [`FIXED`], which is no setting.
const PARAMETER: &str = "wait_end_of_query";

/// The names of the fixed settings.
pub fn fixed_names() -> impl Iterator<Item = &'static str> {
    FIXED.into_iter().map(|(name, _)| name)
}

/// What is sent with an INSERT: the fixed settings as they were when its segment was opened, those
/// that are fixed since, and the operator's as they are now; less what this server does not `know`,
/// since none of it changes what the INSERT means to a server that does not have it.
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

/// Other names of [`FIXED`] ones, and the token itself.
const FIXED_TOO: [&str; 3] = [TOKEN, "insert_distributed_sync", "max_insert_block_size_rows"];

/// The format of an INSERT's rows. To ClickHouse both are the same block, under the same token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InsertFormat {
    /// `RowBinaryWithNamesAndTypes`: streamed as it lies in the spool.
    Rowbinary,
    /// `Native`: made into columns first.
    Native,
}

/// `NAME=VALUE` of `--clickhouse-setting`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickHouseSetting {
    /// The setting's name, checked to be one word that is none of [`FIXED`].
    pub name: String,
    /// Its value as ClickHouse reads it.
    pub value: String,
}

impl std::str::FromStr for ClickHouseSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a setting looks like insert_quorum=2")?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("`{name}` is no name of a ClickHouse setting"));
        }
        if FIXED.iter().map(|(fixed, _)| fixed).chain(&FIXED_TOO).any(|fixed| *fixed == name) {
            return Err(format!(
                "`{name}` is sent by the server itself: that rows are stored as they are, and once, depends on it"
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
    fn what_inserts_depend_on_can_not_be_set() {
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
        // Of a segment of before, the operator's setting was frozen too.
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
