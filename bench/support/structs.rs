//! What the encoder is compared with: `sonic_rs::from_slice` into a borrowed struct, and the same
//! RowBinary written from it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sluicegate::batch::Batch;
use sluicegate::rowbinary::RowBuffer;

use crate::columns;

/// An event as a struct.
pub trait Row<'a>: Deserialize<'a> {
    /// Writes the columns that clients fill; nothing when a time is none.
    fn write(&self, rows: &mut RowBuffer) -> Option<()>;
}

/// The table of the sample events.
#[derive(Deserialize)]
pub struct Event<'a> {
    #[serde(borrow)]
    client_time: Cow<'a, str>,
    #[serde(borrow)]
    device_id: Cow<'a, str>,
    #[serde(borrow)]
    device_os: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    sequence: i64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    param_int: i64,
    #[serde(borrow)]
    param_str: Cow<'a, str>,
}

impl<'a> Row<'a> for Event<'a> {
    fn write(&self, rows: &mut RowBuffer) -> Option<()> {
        rows.put(unix_seconds(&self.client_time)?.to_le_bytes());
        rows.put_string(self.device_id.as_bytes());
        rows.put_string(self.device_os.as_bytes());
        rows.put_string(self.session.as_bytes());
        rows.put(self.sequence.to_le_bytes());
        rows.put_string(self.event.as_bytes());
        rows.put(self.param_int.to_le_bytes());
        rows.put_string(self.param_str.as_bytes());
        Some(())
    }
}

/// The same, each of whose fields may be missing.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Sparse<'a> {
    #[serde(borrow)]
    client_time: Cow<'a, str>,
    #[serde(borrow)]
    device_id: Cow<'a, str>,
    #[serde(borrow)]
    device_os: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    sequence: i64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    param_int: i64,
    #[serde(borrow)]
    param_str: Cow<'a, str>,
}

impl<'a> Row<'a> for Sparse<'a> {
    fn write(&self, rows: &mut RowBuffer) -> Option<()> {
        let seconds = if self.client_time.is_empty() { 0 } else { unix_seconds(&self.client_time)? };
        rows.put(seconds.to_le_bytes());
        rows.put_string(self.device_id.as_bytes());
        rows.put_string(self.device_os.as_bytes());
        rows.put_string(self.session.as_bytes());
        rows.put(self.sequence.to_le_bytes());
        rows.put_string(self.event.as_bytes());
        rows.put(self.param_int.to_le_bytes());
        rows.put_string(self.param_str.as_bytes());
        Some(())
    }
}

/// The sample's columns and one more, of another type.
macro_rules! and_one_more {
    ($(#[$doc:meta])* $name:ident, $columns:ident, $column:ident: $type:ty, $type_name:literal, $write:expr) => {
        $(#[$doc])*
        #[derive(Deserialize)]
        pub struct $name<'a> {
            #[serde(borrow)]
            client_time: Cow<'a, str>,
            #[serde(borrow)]
            device_id: Cow<'a, str>,
            #[serde(borrow)]
            device_os: Cow<'a, str>,
            #[serde(borrow)]
            session: Cow<'a, str>,
            sequence: i64,
            #[serde(borrow)]
            event: Cow<'a, str>,
            param_int: i64,
            #[serde(borrow)]
            param_str: Cow<'a, str>,
            $column: $type,
        }

        /// Its columns.
        pub const $columns: [(&str, &str); 9] = {
            let [a, b, c, d, e, f, g, h] = columns::OF_CLIENTS;
            [a, b, c, d, e, f, g, h, (stringify!($column), $type_name)]
        };

        impl<'a> Row<'a> for $name<'a> {
            fn write(&self, rows: &mut RowBuffer) -> Option<()> {
                rows.put(unix_seconds(&self.client_time)?.to_le_bytes());
                rows.put_string(self.device_id.as_bytes());
                rows.put_string(self.device_os.as_bytes());
                rows.put_string(self.session.as_bytes());
                rows.put(self.sequence.to_le_bytes());
                rows.put_string(self.event.as_bytes());
                rows.put(self.param_int.to_le_bytes());
                rows.put_string(self.param_str.as_bytes());
                let write: fn(&$type, &mut RowBuffer) = $write;
                write(&self.$column, rows);
                Some(())
            }
        }
    };
}

and_one_more!(
    /// An event with an array.
    WithArray, ARRAY_COLUMNS, list: Vec<i64>, "Array(Int64)",
    |list, rows| {
        rows.put_length(list.len());
        list.iter().for_each(|element| rows.put(element.to_le_bytes()));
    }
);

and_one_more!(
    /// An event with a map.
    WithMap, MAP_COLUMNS, counters: Entries<'a>, "Map(String, Int64)",
    |counters, rows| {
        rows.put_length(counters.0.len());
        for (key, value) in &counters.0 {
            rows.put_string(key.as_bytes());
            rows.put(value.to_le_bytes());
        }
    }
);

and_one_more!(
    /// An event with an object inside.
    WithObject, TUPLE_COLUMNS, device: Device<'a>,
    "Tuple(os String, model String, memory Int64, locale String, width Int64, height Int64)",
    |device, rows| {
        rows.put_string(device.os.as_bytes());
        rows.put_string(device.model.as_bytes());
        rows.put(device.memory.to_le_bytes());
        rows.put_string(device.locale.as_bytes());
        rows.put(device.width.to_le_bytes());
        rows.put(device.height.to_le_bytes());
    }
);

/// The entries of a map as they come, which is cheaper than any map of the standard library.
pub struct Entries<'a>(Vec<(Cow<'a, str>, i64)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Key(key), value)) = access.next_entry()? {
                    entries.push((key, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// A borrowed key: `Cow` alone is always an owned one.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object inside an event.
#[derive(Deserialize)]
pub struct Device<'a> {
    #[serde(borrow)]
    os: Cow<'a, str>,
    #[serde(borrow)]
    model: Cow<'a, str>,
    memory: i64,
    #[serde(borrow)]
    locale: Cow<'a, str>,
    width: i64,
    height: i64,
}

/// A table of 100 columns: texts and integers in turn.
macro_rules! hundred {
    ($($text:ident $number:ident)*) => {
        /// Its event.
        #[derive(Deserialize)]
        pub struct Hundred<'a> {
            $(#[serde(borrow)] $text: Cow<'a, str>, $number: i64,)*
        }

        /// Its columns.
        pub const HUNDRED_COLUMNS: [(&str, &str); 100] = [$((stringify!($text), "String"), (stringify!($number), "Int64"),)*];

        impl<'a> Row<'a> for Hundred<'a> {
            fn write(&self, rows: &mut RowBuffer) -> Option<()> {
                $(rows.put_string(self.$text.as_bytes()); rows.put(self.$number.to_le_bytes());)*
                Some(())
            }
        }
    };
}

hundred! {
    t00 n00 t01 n01 t02 n02 t03 n03 t04 n04 t05 n05 t06 n06 t07 n07 t08 n08 t09 n09
    t10 n10 t11 n11 t12 n12 t13 n13 t14 n14 t15 n15 t16 n16 t17 n17 t18 n18 t19 n19
    t20 n20 t21 n21 t22 n22 t23 n23 t24 n24 t25 n25 t26 n26 t27 n27 t28 n28 t29 n29
    t30 n30 t31 n31 t32 n32 t33 n33 t34 n34 t35 n35 t36 n36 t37 n37 t38 n38 t39 n39
    t40 n40 t41 n41 t42 n42 t43 n43 t44 n44 t45 n45 t46 n46 t47 n47 t48 n48 t49 n49
}

/// Reads every line of a body into the struct and writes its row, with what the server adds.
///
/// # Errors
///
/// A line that is no such event.
pub fn encode<'a, R: Row<'a>>(
    body: &'a [u8],
    ip: &[u8],
    seconds: u32,
    rows: &mut RowBuffer,
    batch: &mut Batch,
) -> Result<(), String> {
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    let mut start = 0;
    for end in ends {
        let line = body.get(start..end).unwrap_or_default();
        start = end + 1;
        if line.is_empty() {
            continue;
        }
        let event: R = sonic_rs::from_slice(line).map_err(|error| error.to_string())?;
        event.write(rows).ok_or("a time")?;
        rows.put_string(ip);
        rows.put(seconds.to_le_bytes());
        batch.rows.count += 1;
    }
    batch.rows.bytes.extend_from_slice(rows.written());
    rows.truncate(0);
    Ok(())
}

/// `YYYY-MM-DD hh:mm:ss`, as quick as plain code is.
fn unix_seconds(text: &str) -> Option<u32> {
    let text: &[u8; 19] = text.as_bytes().try_into().ok()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b' ', h1, h2, b':', i1, i2, b':', s1, s2] = text else {
        return None;
    };
    let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let (year, month, day) = (two(y1, y2) * 100 + two(y3, y4), two(m1, m2), two(d1, d2));
    let (shifted, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (month * 153 + 2) / 5 + day - 719_469;
    u32::try_from(days * 86_400 + two(h1, h2) * 3600 + two(i1, i2) * 60 + two(s1, s2)).ok()
}
