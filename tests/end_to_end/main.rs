//! The server's binary from outside, with a real ClickHouse behind it.
//!
//! All of it is one program: it is linked once, its tests wait at the same time, and those that need no
//! ClickHouse of their own share one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod admin;
mod arrays;
mod arrival;
mod assumptions;
mod behind_proxies;
mod browser;
#[cfg(feature = "tls")]
mod clickhouse_tls;
mod clients;
mod codings;
mod commands;
mod cors;
mod crash;
mod damage;
mod defaults;
mod disk;
mod documents;
mod duplicates;
mod embedded;
mod engine_may;
mod events;
mod examples;
mod faults;
mod figures;
mod framing;
mod generated;
mod held;
mod idempotency;
mod illness;
mod insert_format;
mod inserted;
mod invalid_text;
mod keys;
mod ledger;
mod lifecycle;
mod limits;
mod limits_by_rate;
mod live;
mod liveness;
mod logs;
mod mapping;
mod memory;
mod open_types;
mod openapi;
mod oracle;
mod outcomes;
mod page;
mod presence;
mod promtool;
mod proxy;
mod quarantine;
mod quarantine_page;
mod refusals;
mod repeats;
mod replicas;
mod replicated;
mod reports;
mod schema_change;
mod send;
mod several_tables;
mod silence;
mod start_log;
mod stats;
mod stops;
mod systemd;
mod tables;
mod tls;
mod typed_paths;
mod types;
mod values;
