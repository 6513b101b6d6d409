//! Values for the types without types inside, by chance.

use super::reasons::*;
use super::values::{Maker, pick, quoted};

/// The same number in another form.
pub fn spelled(random: &mut Maker, number: String) -> String {
    let form = random.below(60);
    if (1..6).contains(&form) {
        random.because(INTEGRAL);
    }
    match form {
        1 => format!("{number}.0"),
        2 => format!("{number}e0"),
        3 if number.ends_with("00") => format!("{}E+2", &number[..number.len() - 2]),
        4 => format!("{number}00e-2"),
        5 => format!("{number}.000"),
        6..10 => quoted(&number),
        _ => number,
    }
}

pub fn integer(random: &mut Maker, width: u8, is_signed: bool) -> String {
    let bits = u32::from(width) * 8 - u32::from(is_signed);
    let (minus, most) = (if is_signed && random.one_in(2) { "-" } else { "" }, power_of_two(bits));
    let digits = match random.below(12) {
        0 if minus.is_empty() => "0".to_owned(),
        1 => less_one(&most),
        2 if minus == "-" => most,
        3 if minus.is_empty() && random.one_in(15) => {
            random.because(WRAPPED);
            most
        }
        4 if random.one_in(15) => {
            random.because(WRAPPED);
            format!("{most}0")
        }
        5 => format!("{}", random.below(1 << 7) * 100 % (1 << bits.min(62))),
        6 if random.one_in(8) => {
            return pick(random, &["1.5", "\"1.5\"", "\"1e2\"", "\"+5\"", "\"007\"", "\"1 \"", "\"x1\""]).to_owned();
        }
        _ => (random.next() % (1 << random.below(u64::from(bits.min(63)) + 1).min(62))).to_string(),
    };
    let number = format!("{minus}{digits}");
    spelled(random, number)
}

/// 2 to this power, in decimal.
pub fn power_of_two(bits: u32) -> String {
    let mut digits = vec![1u8];
    for _ in 0..bits {
        let mut carry = 0;
        for digit in &mut digits {
            let doubled = *digit * 2 + carry;
            (*digit, carry) = (doubled % 10, doubled / 10);
        }
        digits.extend((carry > 0).then_some(carry));
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

/// A power of two less one: it never ends with 0.
pub fn less_one(number: &str) -> String {
    let (front, last) = number.split_at(number.len() - 1);
    format!("{front}{}", last.parse::<u8>().unwrap() - 1)
}

pub fn float(random: &mut Maker, largest: f64) -> String {
    let json = any_float(random);
    if json.trim_matches('"').parse::<f64>().is_ok_and(|number| number.abs() >= largest && !json.contains("inf")) {
        random.because(WRAPPED);
    }
    json
}

pub fn any_float(random: &mut Maker) -> String {
    let borderline = [
        "3.4028235e38",
        "1e39",
        "1e308",
        "1e400",
        "1e-400",
        "-0.0",
        "0.1",
        "16777217",
        "0.30000000000000004",
        "\"nan\"",
        "\"inf\"",
        "\"-inf\"",
        "\"1.5\"",
        "\"1e3\"",
        "12345678901234567890123",
        "5e-324",
        "1.0000000596046448",
    ];
    match random.below(5) {
        0 => pick(random, &borderline).to_owned(),
        1 => (random.next() as i64 >> random.below(63)).to_string(),
        2 if random.one_in(3) => format!("{:e}", f64::from_bits(random.next())).replace("NaN", "0").replace("inf", "1"),
        _ => {
            let number = (random.next() as i32) as f64 / 1000.0;
            number.to_string()
        }
    }
}

pub fn decimal(random: &mut Maker, precision: u8, scale: u8) -> String {
    let integers = usize::from(precision - scale);
    let digits = |random: &mut Maker, count: usize| -> String {
        (0..count).map(|_| char::from(b'0' + random.below(10) as u8)).collect()
    };
    let count = random.below(integers as u64 + 1) as usize + usize::from(random.one_in(25));
    let front = digits(random, count);
    let front = front.trim_start_matches('0');
    let front = if front.is_empty() { "0" } else { front };
    let places = random.below(u64::from(scale) + 3) as usize;
    let fraction = digits(random, places);
    let minus = if random.one_in(3) { "-" } else { "" };
    let number = if fraction.is_empty() { format!("{minus}{front}") } else { format!("{minus}{front}.{fraction}") };
    match random.below(12) {
        0 => quoted(&number),
        1 if front == "0" || precision < 10 => {
            random.because(DECIMAL_FORM);
            format!("{number}e{}", random.below(5) as i64 - 2)
        }
        1 => format!("{number}e{}", random.below(5) as i64 - 2),
        2 if random.one_in(4) => {
            random.because(DECIMAL_TEXT);
            pick(random, &["\"x\"", "\"1e\"", "\"1.2.3\"", "1e300", "1e-300"]).to_owned()
        }
        _ => number,
    }
}

pub fn uuid(random: &mut Maker) -> String {
    let (high, low) = (random.next(), random.next());
    let plain = format!("{high:016x}{low:016x}");
    let dashed = [&plain[..8], &plain[8..12], &plain[12..16], &plain[16..20], &plain[20..]].join("-");
    quoted(&match random.below(8) {
        0 => plain,
        1 => dashed.to_uppercase(),
        2 if random.one_in(4) => dashed[..20].to_owned(),
        _ => dashed,
    })
}

pub fn day(random: &mut Maker, from: u64, to: u64) -> (u64, u64, u64) {
    (from + random.below(to + 1 - from), 1 + random.below(12), 1 + random.below(28))
}

pub fn date(random: &mut Maker, from: u64, to: u64) -> String {
    let (year, month, day) = day(random, from, to - 1);
    match random.below(14) {
        0 => quoted(&format!("{year}{month:02}{day:02}")),
        1 => quoted(&format!("{year}/{month}/{day}")),
        2 if random.one_in(12) => {
            random.because(WRAPPED);
            quoted(&format!("{year}-02-30"))
        }
        3 if random.one_in(12) => {
            random.because(WRAPPED);
            quoted(&format!("{}-{month:02}-{day:02}", to + 1))
        }
        4 => random.below(30_000).to_string(),
        5 if random.one_in(3) => quoted(&format!("{year}-{month:02}-{day:02} 10:20:30")),
        6 => quoted(&format!("{year}-{month}-{day}")),
        _ => quoted(&format!("{year}-{month:02}-{day:02}")),
    }
}

pub fn moment(random: &mut Maker, from: u64, to: u64, precision: u8) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day) = day(random, from + 1, to - 1);
    let (hour, minute, second) = (random.below(24), random.below(60), random.below(60));
    let places = if precision > 0 { random.below(u64::from(precision) + 2) as usize } else { 0 };
    let fraction =
        if places > 0 { format!(".{:0places$}", random.below(10u64.pow(places as u32))) } else { String::new() };
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    let unix = random.below(4_000_000_000);
    quoted(&match random.below(20) {
        0 => format!("{year}-{month:02}-{day:02}T{clock}{fraction}Z"),
        1 => format!("{year}-{month:02}-{day:02}T{clock}{fraction}+02:00"),
        2 => format!("{year}-{month:02}-{day:02} {clock}{fraction} -0530"),
        3 => format!("{year}{month:02}{day:02}{hour:02}{minute:02}{second:02}"),
        4 => format!("{year}-{month:02}-{day:02}"),
        5 => format!("{year}/{month:02}/{day:02} {clock}"),
        6 => format!("{day:02} {} {year} {clock}", MONTHS[month as usize - 1]),
        7 => format!("{day:02}/{month:02}/{year} {clock}"),
        8 => format!("{day:02}.{month:02}.{year}"),
        9 => format!("{year}-{month:02}-{day:02} {hour}:{minute:02}"),
        10 => (1_000_000_000 + unix % 3_000_000_000).to_string(),
        11 if to < 2200 || random.one_in(6) => {
            if to > 2200 {
                random.because(UNIX_TIMES);
            }
            return unix.to_string();
        }
        12 if random.one_in(4) => {
            random.because(UNIX_TIMES);
            return match random.below(3) {
                0 => ((1_000_000_000 + unix) * 1000).to_string(),
                1 => format!("{unix}.25"),
                _ => format!("-{unix}"),
            };
        }
        13 if random.one_in(6) => {
            random.because(WRAPPED);
            format!("{year}-{month:02}-{day:02} 25:00:00")
        }
        16 if random.one_in(6) => format!("{year}-13-{day:02} {clock}"),
        17 => format!("Tue, {day:02} {} {year} {clock} GMT", MONTHS[month as usize - 1]),
        _ => format!("{year}-{month:02}-{day:02} {clock}{fraction}"),
    })
}

pub fn time_of_day(random: &mut Maker, precision: u8) -> String {
    let (minute, second) = (random.below(60), random.below(60));
    let places = if precision > 0 { random.below(u64::from(precision) + 2) as usize } else { 0 };
    let fraction =
        if places > 0 { format!(".{:0places$}", random.below(10u64.pow(places as u32))) } else { String::new() };
    let minus = if random.one_in(5) { "-" } else { "" };
    match random.below(10) {
        0 => (random.below(200_000) as i64 - 90_000).to_string(),
        1 => quoted(&format!("{minus}{}:{minute:02}:{second:02}{fraction}", random.below(1000))),
        2 => quoted(&format!("{minute:02}:{second:02}")),
        3 => quoted(&random.below(1000).to_string()),
        4 if random.one_in(6) => {
            random.because(CARRIED);
            quoted(pick(random, &["12:60:00", "1000:00:00", "1:", ":1", "12:34:5x"]))
        }
        _ => quoted(&format!("{minus}{:02}:{minute:02}:{second:02}{fraction}", random.below(24))),
    }
}

pub fn ipv4(random: &mut Maker) -> String {
    if random.one_in(25) {
        return pick(random, &["256.1.1.1", "1.2.3", "1.2.3.4.5", "::1", ""]).to_owned();
    }
    let bytes = (random.next() as u32).to_be_bytes();
    std::net::Ipv4Addr::from(bytes).to_string()
}

pub fn ipv6(random: &mut Maker) -> String {
    let address = std::net::Ipv6Addr::from((u128::from(random.next()) << 64) | u128::from(random.next()));
    quoted(&match random.below(8) {
        0 => ipv4(random),
        1 => pick(random, &["::", "::1", "::ffff:1.2.3.4", "fe80::1:2", "2001:db8::"]).to_owned(),
        2 => format!("{address}").to_uppercase(),
        3 if random.one_in(4) => pick(random, &["1::2::3", "12345::", "g::1", ":"]).to_owned(),
        _ => address.to_string(),
    })
}
