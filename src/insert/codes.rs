//! The error codes of ClickHouse that an INSERT can get, with their meanings.
//!
//! Names and numbers are from `src/Common/ErrorCodes.cpp` of ClickHouse. An INSERT that gets a code that
//! is not listed is retried with growing pauses, and an operator is warned after a while.

/// The meaning of an error code for the INSERT that gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A temporary condition; nothing was written.
    Busy,
    /// The bytes end inside of a row: a bad row, or a body that was truncated on its way.
    Unreadable,
    /// A temporary condition; the rows may be stored, or their token without them.
    Passing,
    /// A mistake in the deployment, which needs operator action; nothing was written.
    Deployment,
    /// ClickHouse refuses some rows; nothing of the block was written.
    Rows,
    /// The block exceeds a limit of the server.
    TooLarge,
}

/// The codes of each meaning, with the reason.
const CODES: [(Meaning, &str, &[u32]); 25] = [
    (Meaning::Busy, "concurrent queries or load, checked when a query begins", &[202, 745]),
    (Meaning::Busy, "an earlier attempt still runs under this query_id", &[216]),
    (Meaning::Busy, "too many parts wait for merges, checked before a part is written", &[252]),
    (Meaning::Unreadable, "the bytes end inside of a row", &[32, 33]),
    (Meaning::Passing, "the body was truncated on its way", &[3]),
    (Meaning::Passing, "quotas per interval, concurrent sessions and mutations", &[201, 692, 700]),
    (Meaning::Passing, "pools of connections or threads", &[203, 439, 681]),
    (
        Meaning::Passing,
        "time-outs, sockets, name resolution, other servers",
        &[95, 96, 159, 198, 209, 210, 279, 335, 364, 410, 473, 519],
    ),
    (
        Meaning::Passing,
        "Keeper, quorum and replicas",
        &[225, 242, 244, 254, 265, 285, 286, 289, 319, 369, 415, 416, 659, 999],
    ),
    (Meaning::Passing, "the query was cancelled, or the server stops", &[236, 394, 734, 735]),
    (
        Meaning::Passing,
        "files and disks of the server",
        &[74, 75, 76, 77, 84, 87, 88, 107, 172, 204, 214, 235, 243, 384, 400, 425, 458, 499, 521, 531, 641, 733, 738],
    ),
    (Meaning::Passing, "an exception of a library or of the server itself", &[49, 173, 454, 668, 1000, 1001, 1002]),
    (Meaning::Passing, "a limit on the table's size, checked after the token is written", &[1016]),
    (
        Meaning::Deployment,
        "no such table, database or column, or one that can't be inserted into",
        &[8, 10, 16, 20, 36, 44, 47, 48, 60, 81, 218, 524],
    ),
    (
        Meaning::Deployment,
        "the statement, a function or a format is not known",
        &[46, 50, 62, 63, 73, 78, 80, 89, 168, 344, 401, 446],
    ),
    (
        Meaning::Deployment,
        "a setting is not known, not allowed, or has a value that can't be read",
        &[115, 318, 452, 457, 471, 472, 764],
    ),
    (
        Meaning::Deployment,
        "users, passwords, rights, quotas",
        &[164, 180, 192, 193, 194, 195, 199, 200, 291, 392, 492, 496, 497, 511, 516],
    ),
    (Meaning::Deployment, "the cluster's definition", &[170, 251, 371, 507, 701]),
    (
        Meaning::Rows,
        "a value can't be read as its type",
        &[6, 25, 26, 27, 38, 41, 70, 72, 130, 321, 376, 407, 436, 441, 467, 490, 632, 675, 676, 691],
    ),
    (Meaning::Rows, "a NULL, a length or a size does not fit", &[11, 19, 69, 120, 128, 131, 190, 349, 366]),
    (Meaning::Rows, "a constraint is violated", &[469]),
    (
        Meaning::Rows,
        "an exception of an expression of the table: a default, a key, a TTL",
        &[43, 53, 117, 125, 153, 395, 503],
    ),
    (Meaning::Rows, "a partition can't be computed", &[248]),
    (Meaning::TooLarge, "memory", &[241]),
    (Meaning::TooLarge, "rows or bytes of one query", &[158, 161, 191, 229, 290, 307, 396]),
];

/// The meaning of a code; `None` if the code is not listed.
pub(super) fn meaning(code: u32) -> Option<Meaning> {
    CODES.iter().find(|(_, _, codes)| codes.contains(&code)).map(|(meaning, _, _)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_meaning_and_every_line_a_reason() {
        let mut codes: Vec<u32> = CODES.iter().flat_map(|(_, _, codes)| codes.iter().copied()).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count, "a code is listed twice");
        assert!(CODES.iter().all(|(_, reason, codes)| reason.len() > 4 && !codes.is_empty()));
    }
}
