//! IPv4 and IPv6 values, and the client's address in columns that the server fills.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{JsonToken, ValueError};
use crate::ndjson::address_form::StoredAddress;
use crate::rowbinary::RowBuffer;
use crate::schema::ColumnType;

/// Writes an IPv4 value: a 32-bit integer, little-endian.
fn put_v4(address: Ipv4Addr, out: &mut RowBuffer) {
    out.put(address.to_bits().to_le_bytes());
}

/// Writes an IPv6 value: 16 bytes in network byte order.
fn put_v6(address: Ipv6Addr, out: &mut RowBuffer) {
    out.put(address.octets());
}

pub(super) fn write_v4(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let JsonToken::Text(text) = token else {
        return Err(ValueError::Mismatch);
    };
    put_v4(parse_v4(text).ok_or(ValueError::Mismatch)?, out);
    Ok(())
}

/// Writes an IPv6 value. An IPv4 address becomes the IPv4-mapped IPv6 address (RFC 4291, section
/// 2.5.5.2).
pub(super) fn write_v6(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let JsonToken::Text(text) = token else {
        return Err(ValueError::Mismatch);
    };
    let address =
        std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok()).ok_or(ValueError::Mismatch)?;
    put_v6(mapped(address), out);
    Ok(())
}

/// Parses four decimal numbers of at most three digits. Leading zeros are ignored, as in ClickHouse.
fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split(|byte| *byte == b'.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 3 || !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        *octet = std::str::from_utf8(part).ok()?.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Writes an IPv4 address as text: what most requests have, and each of them needs.
fn put_v4_text(address: Ipv4Addr, out: &mut RowBuffer) {
    let (mut digits, mut text) = (itoa::Buffer::new(), [0; 16]);
    let mut free = &mut text[..];
    for octet in address.octets() {
        // Writing can't fail, because the space suffices: a point is written behind the last one, too.
        let _ = free.write_all(digits.format(octet).as_bytes());
        let _ = free.write_all(b".");
    }
    let unused = free.len() + 1;
    out.put_string(text.get(..text.len() - unused).unwrap_or_default());
}

/// Writes what is stored of the client's address to a column that the server fills.
///
/// An IPv4 column can't hold the address of an IPv6 client, and neither type a hash: a Nullable one gets
/// NULL, and any other one stops the start where such clients may come (`Plan::require_room_for`).
/// Nothing is NULL, or the type's default.
pub(in crate::ndjson) fn put_client(
    address: StoredAddress,
    column_type: &ColumnType,
    nullable: bool,
    out: &mut RowBuffer,
) {
    if nullable {
        let is_null = match address {
            StoredAddress::Nothing => true,
            StoredAddress::Address(address) => *column_type == ColumnType::Ipv4 && address.is_ipv6(),
            StoredAddress::Hash(_) => *column_type != ColumnType::String,
        };
        out.put([u8::from(is_null)]);
        if is_null {
            return;
        }
    }
    match column_type {
        ColumnType::Ipv4 => put_v4(
            match address {
                StoredAddress::Address(IpAddr::V4(address)) => address,
                _ => Ipv4Addr::UNSPECIFIED,
            },
            out,
        ),
        ColumnType::Ipv6 => put_v6(
            match address {
                StoredAddress::Address(address) => mapped(address),
                _ => Ipv6Addr::UNSPECIFIED,
            },
            out,
        ),
        _ => {
            if let StoredAddress::Address(IpAddr::V4(address)) = address {
                return put_v4_text(address, out);
            }
            // The longest text form has 45 bytes: six groups of four hexadecimal digits and an IPv4 address.
            let mut text = [0; 48];
            let mut free = &mut text[..];
            // Writing can't fail, because the space suffices.
            let _ = write!(free, "{address}");
            let unused = free.len();
            out.put_string(text.get(..text.len() - unused).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_address_is_text_as_the_standard_library_writes_it() {
        for octets in [[0, 0, 0, 0], [8, 8, 8, 8], [10, 0, 200, 99], [127, 0, 0, 1], [255, 255, 255, 255]] {
            let address = IpAddr::from(octets);
            let mut out = RowBuffer::default();
            put_client(StoredAddress::Address(address), &ColumnType::String, false, &mut out);
            let mut twin = RowBuffer::default();
            twin.put_string(address.to_string().as_bytes());
            assert_eq!(out.written(), twin.written(), "{address}");
        }
    }
}
