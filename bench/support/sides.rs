//! A body on both sides of the comparison: the row encoder, and structs with the same writing.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use sluicegate::batch::Batch;
use sluicegate::ndjson::{Report, RowEncoder};
use sluicegate::rowbinary::RowBuffer;

use crate::columns;
use crate::corpora::{Corpus, Table};
use crate::rows::{self, ORIGIN};
use crate::structs::{
    self, ARRAY_COLUMNS, Event, HUNDRED_COLUMNS, Hundred, MAP_COLUMNS, Sparse, TUPLE_COLUMNS, WithArray, WithMap,
    WithObject,
};

/// What [`ORIGIN`] is in a row.
const IP: &[u8] = b"8.8.8.8";
const SECONDS: u32 = 1_606_864_194;

/// Both sides of a body.
pub struct Sides {
    /// Events of the body.
    pub events: u32,
    body: Vec<u8>,
    table: Table,
    encoder: RowEncoder,
    report: Report,
    space: RowBuffer,
    batch: Batch,
}

impl Sides {
    /// Both sides, which have encoded the body once.
    ///
    /// # Errors
    ///
    /// If they do not write the same rows: then there is nothing to compare.
    pub fn of(corpus: &Corpus) -> Result<Self, String> {
        let columns: &[(&str, &str)] = match corpus.table {
            Table::Events | Table::Sparse => &columns::OF_CLIENTS,
            Table::Hundred => &HUNDRED_COLUMNS,
            Table::Array => &ARRAY_COLUMNS,
            Table::Map => &MAP_COLUMNS,
            Table::Tuple => &TUPLE_COLUMNS,
        };
        let mut sides = Self {
            events: 0,
            body: corpus.body.clone(),
            table: corpus.table,
            encoder: rows::encoder(columns)?,
            report: Report::default(),
            space: RowBuffer::with_space(16 << 10),
            batch: Batch::new(0),
        };
        sides.encode()?;
        let encoded = sides.batch.rows.bytes.clone();
        sides.events = sides.batch.rows.count;
        sides.encode_by_structs()?;
        if sides.batch.rows.bytes != encoded || sides.batch.rows.count != sides.events {
            return Err(format!("{}: the two do not write the same rows", corpus.name));
        }
        Ok(sides)
    }

    /// Encodes the body.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn encode(&mut self) -> Result<(), String> {
        self.batch.clear();
        self.report.clear();
        self.encoder
            .encode(&self.body, &ORIGIN, &mut self.batch, &mut self.report)
            .map_err(|refusal| format!("{refusal:?}"))
    }

    /// Reads every line of the body into the struct of its table, and writes that.
    ///
    /// # Errors
    ///
    /// If a line is refused.
    pub fn encode_by_structs(&mut self) -> Result<(), String> {
        let Self { body, space, batch, .. } = self;
        batch.clear();
        match self.table {
            Table::Events => structs::encode::<Event<'_>>(body, IP, SECONDS, space, batch),
            Table::Sparse => structs::encode::<Sparse<'_>>(body, IP, SECONDS, space, batch),
            Table::Hundred => structs::encode::<Hundred<'_>>(body, IP, SECONDS, space, batch),
            Table::Array => structs::encode::<WithArray<'_>>(body, IP, SECONDS, space, batch),
            Table::Map => structs::encode::<WithMap<'_>>(body, IP, SECONDS, space, batch),
            Table::Tuple => structs::encode::<WithObject<'_>>(body, IP, SECONDS, space, batch),
        }
    }
}
