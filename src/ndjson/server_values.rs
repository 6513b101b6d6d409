//! The values of columns that no line fills: the client's address, the server's time, constants, and what a
//! request's head says. They are encoded once for each body.

use std::borrow::Cow;

use chrono::DateTime;

use super::address_form::{AddressForm, AddressKey, StoredAddress};
use super::general::{Rejection, decode, missing, reject_value};
use super::values::nested::InPlace;
use super::values::{self, JsonToken, address, time};
use super::{Origin, RequestValues};
use crate::rowbinary::RowBuffer;
use crate::schema::{AddressKind, Cell, ColumnType, Field, Plan, SchemaError, ServerColumn, Source};

/// What the values of one body are made of.
pub(super) struct ServerInputs<'a> {
    pub(super) origin: &'a Origin,
    /// What is stored of an address as a rule.
    pub(super) form: &'a AddressForm,
    /// The key of hashed addresses, if there is one.
    pub(super) key: Option<&'a AddressKey>,
    /// What the table's columns get of the request's head; `None` if that is nothing.
    pub(super) values: Option<&'a RequestValues>,
}

impl ServerInputs<'_> {
    /// Writes the value of a column.
    ///
    /// # Errors
    ///
    /// Why each line of the body is rejected: the value does not fit the column, or is required and missing.
    /// The column's bytes are written then, too.
    pub(super) fn put(&self, column: &ServerColumn, out: &mut RowBuffer) -> Result<(), Rejection> {
        let field = &column.field;
        let is_there = match &column.source {
            Source::ServerTime => self.put_time(field, out),
            Source::ClientAddress(kind) => self.put_address(*kind, field, out),
            Source::Value(json) => put_value(json, field, out)?,
            Source::Request(place, _) => self.put_text(usize::from(*place), field, out)?,
            Source::Field | Source::Fields(_) | Source::Line | Source::Collected => false,
        };
        if field.is_required && !is_there { Err(missing(field)) } else { Ok(()) }
    }

    fn put_time(&self, field: &Field, out: &mut RowBuffer) -> bool {
        let unix_ns = self.origin.server_time_unix_ns;
        let column_type = &field.cell.column_type;
        if let ColumnType::DateTime(_) | ColumnType::DateTime64 { .. } = column_type {
            out.put_zeros(usize::from(field.lead));
            time::put_server_time(unix_ns, column_type, out);
            return true;
        }
        let (form, seconds) = (DateTime::from_timestamp_nanos(unix_ns), unix_ns.div_euclid(1_000_000_000));
        match column_type {
            ColumnType::Date | ColumnType::Date32 => {
                put_own(JsonToken::Text(form.format("%F").to_string().as_bytes()), field, out)
            }
            ColumnType::String | ColumnType::FixedString(_) | ColumnType::Variant(_) | ColumnType::Dynamic(_) => {
                put_own(JsonToken::Text(form.format("%FT%T%.3fZ").to_string().as_bytes()), field, out)
            }
            _ => put_own(JsonToken::Number(seconds.to_string().as_bytes()), field, out),
        }
    }

    fn put_address(&self, kind: AddressKind, field: &Field, out: &mut RowBuffer) -> bool {
        let Cell { column_type, nullable, .. } = &field.cell;
        let address = self.stored(kind);
        if !matches!(column_type, ColumnType::String | ColumnType::Ipv4 | ColumnType::Ipv6) {
            return match address {
                StoredAddress::Nothing => {
                    out.put_slice(&field.absent.missing);
                    false
                }
                address => put_own(JsonToken::Text(address.to_string().as_bytes()), field, out),
            };
        }
        if field.lead > u8::from(*nullable) {
            out.put([0]);
        }
        address::put_client(address, column_type, *nullable, out);
        address != StoredAddress::Nothing
    }

    fn stored(&self, kind: AddressKind) -> StoredAddress {
        let address = self.origin.client_ip;
        match (kind, self.form, self.key) {
            // A hash that was stored before is of the same key.
            (AddressKind::Usual, form, _) | (AddressKind::Hashed, form @ AddressForm::AsStored(_), _) => {
                form.of(address)
            }
            (AddressKind::Full, ..) => AddressForm::Full.of(address),
            (AddressKind::Truncated, ..) => AddressForm::Truncated.of(address),
            (AddressKind::Hashed, _, Some(key)) => AddressForm::Hashed(key.clone()).of(address),
            (AddressKind::Hashed, _, None) | (AddressKind::None, ..) => StoredAddress::Nothing,
        }
    }

    fn put_text(&self, place: usize, field: &Field, out: &mut RowBuffer) -> Result<bool, Rejection> {
        let Some(text) = self.values.and_then(|values| values.get(place)) else {
            out.put_slice(&field.absent.missing);
            return Ok(false);
        };
        let token = match field.cell.column_type {
            // JSON has literals for it, and no text is one of its values.
            ColumnType::Bool if text != "null" => JsonToken::of_bare(text.as_bytes()),
            _ => JsonToken::Text(text.as_bytes()),
        };
        put_token(token, text, field, out)?;
        Ok(true)
    }
}

/// Writes what the server says itself; where no value of the column is like it, what a missing one is. No line is
/// to blame for that.
fn put_own(token: JsonToken<'_>, field: &Field, out: &mut RowBuffer) -> bool {
    let before = out.len();
    let is_written = values::write_field(field, token, &mut InPlace::default(), out).is_ok();
    if !is_written {
        out.truncate(before);
        out.put_slice(&field.absent.missing);
    }
    is_written
}

fn put_value(json: &str, field: &Field, out: &mut RowBuffer) -> Result<bool, Rejection> {
    let text: Cow<'_, str>;
    let token = match json.as_bytes().first() {
        Some(b'"') => {
            text = decode(json).unwrap_or_default();
            JsonToken::Text(text.as_bytes())
        }
        Some(b'{' | b'[') => JsonToken::Nested(json.as_bytes()),
        _ => JsonToken::of_bare(json.as_bytes()),
    };
    put_token(token, json, field, out)?;
    Ok(true)
}

/// `shown` is what a message shows of the value.
fn put_token(token: JsonToken<'_>, shown: &str, field: &Field, out: &mut RowBuffer) -> Result<(), Rejection> {
    let before = out.len();
    values::write_field(field, token, &mut InPlace::default(), out).map_err(|error| {
        out.truncate(before);
        out.put_slice(&field.absent.missing);
        reject_value(field, shown, error)
    })
}

/// Checks that the constants of a mapping are values of their columns.
///
/// # Errors
///
/// The first one that is none, with its column.
pub fn check_constants(plan: &Plan) -> Result<(), SchemaError> {
    for ServerColumn { source, field } in plan.server_runs().iter().flatten() {
        if let Source::Value(json) = source {
            put_value(json, field, &mut RowBuffer::default()).map_err(|rejection| SchemaError::Unmappable {
                column: field.name.to_string(),
                type_name: field.type_name.to_string(),
                reason: format!("can't have this value: {}", rejection.message),
            })?;
        }
    }
    Ok(())
}
