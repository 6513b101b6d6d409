//! The inserters, which bring sealed blocks into ClickHouse and prove that their rows are there.
//!
//! ```text
//! committer ── sealed block ──▶ due ──▶ inserter i ── step ──▶ attempt ──▶ ClickHouse
//!                                  ▲          │                     │ outcome
//!                                  └── later ─┘◀────────────────────┘  (nothing is ever dropped)
//! ```
//!
//! One block is one INSERT, and one block for ClickHouse, under a token that identifies its bytes. An attempt whose
//! outcome is unknown is therefore repeated under the same token. A block leaves the spool only
//! after ClickHouse has proven the INSERT (invariant 4).
//!
//! | file | contents |
//! |---|---|
//! | `due` | the blocks that wait, by time |
//! | `inserter` | takes one, does step after step |
//! | `step` | which step is next, and what a failure means: pure |
//! | `attempt` | one INSERT: choose a server, note, send, prove |
//! | `repeat` | decides whether a block that ClickHouse may have is sent again |
//! | `places` | bounds the concurrent INSERTs; silent attempts give up their places |
//! | `statement`, `defaults`, `stream`, `native`, `compression` | the INSERT's text and body |
//! | `outcome`, `codes`, `message`, `failure` | the class of each error of ClickHouse |
//! | `presence` | are the rows of a repeat there |
//! | `cutting`, `rows`, `row_json` | rows that ClickHouse refuses are cut out |
//! | `said` | what the log says of failures |
//! | `damage` | a block that can't be read as it was sealed |

mod attempt;
mod codes;
pub mod compression;
mod cutting;
mod damage;
mod defaults;
pub mod due;
mod failure;
pub mod inserter;
mod message;
pub mod native;
pub mod outcome;
mod places;
mod presence;
mod repeat;
mod row_json;
mod rows;
mod said;
mod statement;
mod step;
pub mod stream;
