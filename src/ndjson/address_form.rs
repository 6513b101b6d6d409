//! `--client-ip`: what is stored of a client's address, in the columns that the server fills and in the
//! quarantine table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fmt, str};

/// Bytes of a hash as text: 128 bits in hexadecimal digits.
const HASH_TEXT_BYTES: usize = 32;

/// What is stored of a client's address.
#[derive(Clone, Debug, Default)]
pub enum AddressForm {
    /// All of it.
    #[default]
    Full,
    /// The /24 of an IPv4 address, the /48 of an IPv6 one.
    Truncated,
    /// A hash with this key: who has not the key can't tell whose it is.
    Hashed(AddressKey),
    /// Nothing.
    None,
    /// A hash that was stored before.
    AsStored(AddressHash),
}

/// The key of hashed addresses.
#[derive(Clone)]
pub struct AddressKey([u8; 32]);

/// The hash of an address, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressHash([u8; HASH_TEXT_BYTES]);

/// What is stored of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredAddress {
    Nothing,
    Address(IpAddr),
    Hash(AddressHash),
}

impl AddressForm {
    /// What is stored of `address`; an IPv4-mapped IPv6 address counts as the IPv4 address.
    pub(super) fn of(&self, address: Option<IpAddr>) -> StoredAddress {
        let Some(address) = address.map(|address| address.to_canonical()) else {
            return match self {
                Self::AsStored(hash) => StoredAddress::Hash(*hash),
                _ => StoredAddress::Nothing,
            };
        };
        match self {
            Self::Full => StoredAddress::Address(address),
            Self::Truncated => StoredAddress::Address(truncated(address)),
            Self::Hashed(key) => StoredAddress::Hash(key.hash(address)),
            Self::None => StoredAddress::Nothing,
            Self::AsStored(hash) => StoredAddress::Hash(*hash),
        }
    }

    /// What is stored of `address`, as text.
    pub fn text(&self, address: Option<IpAddr>) -> String {
        self.of(address).to_string()
    }

    /// True when there is nothing to store of any address.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::None)
    }
}

fn truncated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0 << 8).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 80).into(),
    }
}

impl AddressKey {
    /// The key that is derived from a secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key("sluicegate 2026-11 client addresses", secret))
    }

    /// The first 128 bits of the keyed BLAKE3 hash of the address, 4 or 16 bytes in network order.
    fn hash(&self, address: IpAddr) -> AddressHash {
        let hash = match address {
            IpAddr::V4(address) => blake3::keyed_hash(&self.0, &address.octets()),
            IpAddr::V6(address) => blake3::keyed_hash(&self.0, &address.octets()),
        };
        let mut text = [0; HASH_TEXT_BYTES];
        for (byte, digit) in hash.to_hex().bytes().zip(&mut text) {
            *digit = byte;
        }
        AddressHash(text)
    }
}

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressKey")
    }
}

impl AddressHash {
    /// Reads the text of a hash; `None` when it is none.
    pub fn read(text: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        text.try_into().ok().filter(|text: &[u8; HASH_TEXT_BYTES]| text.iter().all(is_digit)).map(Self)
    }
}

/// No address is no text.
impl fmt::Display for StoredAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Address(address) => address.fmt(f),
            Self::Hash(AddressHash(text)) => f.write_str(str::from_utf8(text).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(form: &AddressForm, address: &str) -> String {
        form.of(Some(address.parse().unwrap())).to_string()
    }

    #[test]
    fn an_address_is_stored_whole_in_part_or_not_at_all() {
        for (address, full, truncated) in [
            ("8.8.8.255", "8.8.8.255", "8.8.8.0"),
            ("::ffff:8.8.8.255", "8.8.8.255", "8.8.8.0"),
            ("2001:db8:1:ffff::1", "2001:db8:1:ffff::1", "2001:db8:1::"),
            ("ffff:ffff:ffff:ffff::", "ffff:ffff:ffff:ffff::", "ffff:ffff:ffff::"),
        ] {
            assert_eq!(stored(&AddressForm::Full, address), full);
            assert_eq!(stored(&AddressForm::Truncated, address), truncated);
            assert_eq!(stored(&AddressForm::None, address), "");
        }
        for form in [AddressForm::Full, AddressForm::Truncated, AddressForm::None] {
            assert_eq!(form.of(None), StoredAddress::Nothing);
        }
    }

    #[test]
    fn a_hash_depends_on_the_key_and_the_whole_address_alone() {
        let form = AddressForm::Hashed(AddressKey::new(b"0123456789abcdef"));
        let one = stored(&form, "8.8.8.8");
        assert_eq!(one, "6465e60c2535c8b22f1ac3232cbbc839", "stored hashes no longer match");
        assert_eq!(one, stored(&form, "::ffff:8.8.8.8"));
        let other_key = AddressForm::Hashed(AddressKey::new(b"0123456789abcdeF"));
        for other in [stored(&form, "8.8.8.9"), stored(&form, "::808:808"), stored(&other_key, "8.8.8.8")] {
            assert_ne!(one, other);
            assert!(AddressHash::read(other.as_bytes()).is_some());
        }
        assert_eq!(form.of(None), StoredAddress::Nothing);
        assert_eq!(format!("{form:?}"), "Hashed(AddressKey)", "a key is never printed");
    }

    #[test]
    fn a_stored_hash_is_read_and_nothing_else() {
        let text = b"00112233445566778899aabbccddeeff";
        let hash = AddressHash::read(text).unwrap();
        assert_eq!(AddressForm::AsStored(hash).of(None).to_string().as_bytes(), text);
        for other in [&b""[..], b"8.8.8.8", &text[1..], b"00112233445566778899AABBCCDDEEFF", &[0xff; 32]] {
            assert_eq!(AddressHash::read(other), None);
        }
    }
}
