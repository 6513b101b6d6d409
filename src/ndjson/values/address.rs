//! IPv4 and IPv6, and the client's address in any column that can hold it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{JsonToken, ValueError};
use crate::rowbinary::RowBuffer;
use crate::schema::ColumnType;

/// An IPv4 address is a 32-bit integer, so little-endian.
fn put_v4(address: Ipv4Addr, out: &mut RowBuffer) {
    out.put(address.to_bits().to_le_bytes());
}

/// An IPv6 address is its bytes in the network's order.
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

/// IPv4 text in an IPv6 column becomes the mapped address.
pub(super) fn write_v6(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let JsonToken::Text(text) = token else {
        return Err(ValueError::Mismatch);
    };
    let address =
        std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok()).ok_or(ValueError::Mismatch)?;
    put_v6(mapped(address), out);
    Ok(())
}

/// Four decimal numbers of up to three digits; leading zeros mean nothing, as in ClickHouse.
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

/// Writes the client's address into a column of the server.
///
/// As text an address that is IPv4 in truth is written as such, also when the socket gave it
/// mapped into IPv6. An IPv4 column can't hold an IPv6 client; as the client can't help that, the
/// row gets 0.0.0.0.
pub(in crate::ndjson) fn put_client(address: IpAddr, column_type: &ColumnType, out: &mut RowBuffer) {
    let address = address.to_canonical();
    match column_type {
        ColumnType::Ipv4 => put_v4(
            match address {
                IpAddr::V4(address) => address,
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            },
            out,
        ),
        ColumnType::Ipv6 => put_v6(mapped(address), out),
        _ => {
            // The longest address has 45 bytes: eight groups of hexadecimal digits, the last two as IPv4.
            let mut text = [0; 48];
            let mut free = &mut text[..];
            // Writing into enough room can't fail.
            let _ = write!(free, "{address}");
            let unused = free.len();
            out.put_string(text.get(..text.len() - unused).unwrap_or_default());
        }
    }
}
