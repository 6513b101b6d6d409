//! The types of a Variant, and the order in which a value is tried as one of them.

use std::cmp::Reverse;

use super::{Cell, Dialect};
use crate::rowbinary::DataType;

/// The types of a Variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantTypes {
    /// The types in ClickHouse's order: the place of one is its discriminator.
    cells: Box<[Cell]>,
    /// Their indexes in the order in which a value is tried.
    order: Box<[u8]>,
}

impl VariantTypes {
    /// The types of a Variant.
    ///
    /// # Errors
    ///
    /// Why no values of a type are read.
    pub(super) fn compile(types: &[DataType], dialect: Dialect<'_>) -> Result<Self, String> {
        // The discriminator 255 is NULL.
        let count = u8::try_from(types.len()).ok().filter(|count| *count < u8::MAX);
        let count = count.ok_or_else(|| "a Variant of more than 254 types".to_owned())?;
        let cells: Result<Vec<Cell>, String> = types.iter().map(|kind| Cell::compile(kind, dialect)).collect();
        let mut order: Vec<u8> = (0..count).collect();
        order.sort_by_key(|index| types.get(usize::from(*index)).map(|kind| Reverse(priority(kind))));
        Ok(Self { cells: cells?.into(), order: order.into() })
    }

    /// The discriminators and types, in the order in which a value is tried.
    pub fn in_order(&self) -> impl Iterator<Item = (u8, &Cell)> {
        self.order.iter().filter_map(|index| Some((*index, self.cells.get(usize::from(*index))?)))
    }
}

/// The priority of a type, by which ClickHouse tries the largest first (`getTypeTextDeserializePriority` of its
/// `SerializationVariant`): levels of arrays, maps and tuples; the sum of what the type is made of; levels of
/// Nullable and LowCardinality.
fn priority(data_type: &DataType) -> (u32, u32, u32) {
    const ARRAY: u32 = 33;
    const TUPLE: u32 = 32;
    const MAP: u32 = 31;
    let scalar = |number| (0, number, 0);
    match data_type {
        DataType::Nullable(inner) | DataType::LowCardinality(inner) => {
            let (depth, sum, wrapped) = priority(inner);
            (depth, sum, wrapped + 1)
        }
        DataType::Array(inner) => {
            let (depth, sum, wrapped) = priority(inner);
            (depth + 1, sum + ARRAY, wrapped)
        }
        DataType::Map(key, value) => inside([key, value].map(|inner| priority(inner)).into_iter(), MAP),
        DataType::Tuple(elements) => inside(elements.iter().map(|(_, element)| priority(element)), TUPLE),
        DataType::Variant(types) => {
            let of = types.iter().map(priority);
            of.fold((0, 0, 0), |most, of| (most.0.max(of.0), most.1.max(of.1), most.2.max(of.2)))
        }
        DataType::Enum8(_) => scalar(29),
        DataType::Enum16(_) => scalar(28),
        DataType::Uuid => scalar(27),
        DataType::Ipv4 => scalar(26),
        DataType::Ipv6 => scalar(25),
        // As much as Int8 and one: as much as IPv6.
        DataType::Bool => scalar(25),
        DataType::Signed(width) => scalar(24 - 2 * width.ilog2()),
        DataType::Unsigned(width) => scalar(23 - 2 * width.ilog2()),
        DataType::Decimal { precision, .. } => scalar(14 - DataType::decimal_width(*precision).ilog2()),
        DataType::Float32 => scalar(8),
        DataType::Float64 => scalar(7),
        DataType::Date => scalar(6),
        DataType::Date32 => scalar(5),
        DataType::DateTime { .. } => scalar(4),
        DataType::DateTime64 { .. } => scalar(3),
        DataType::FixedString(_) => scalar(2),
        DataType::String => scalar(1),
        DataType::BFloat16
        | DataType::Time
        | DataType::Time64 { .. }
        | DataType::Json { .. }
        | DataType::Dynamic
        | DataType::AggregateFunction => scalar(0),
    }
}

fn inside(elements: impl Iterator<Item = (u32, u32, u32)>, own: u32) -> (u32, u32, u32) {
    // An empty Tuple has no depth.
    elements.fold((0, own, 0), |most, of| (most.0.max(of.0 + 1), most.1 + of.1, most.2.max(of.2)))
}
