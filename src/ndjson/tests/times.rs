//! Tests of dates and times in the whole encoder; the grammar of text is tested in `values/moment.rs`.

use super::*;
use LineCode::{OutOfRange, TypeMismatch};

#[test]
fn date_time_values_are_seconds() {
    let seconds = |value| Ok(Value::DateTime(value));
    for type_name in ["DateTime('UTC')", "DateTime", "DateTime('Etc/UTC')", "DateTime('GMT')"] {
        check(
            type_name,
            &[
                (r#""2020-12-01 23:09:54""#, seconds(1_606_864_194)),
                (r#""2020-12-01T23:09:54""#, seconds(1_606_864_194)),
                (r#""2020-12-01T23:09:54.999Z""#, seconds(1_606_864_194)),
                (r#""2020-12-01T23:09:54.1234567891234Z""#, seconds(1_606_864_194)),
                (r#""2020-12-02T02:09:54+03:00""#, seconds(1_606_864_194)),
                (r#""1606864194""#, seconds(1_606_864_194)),
                (r#""1606864194123""#, seconds(1_606_864_194)),
                ("1606864194", seconds(1_606_864_194)),
                ("5", seconds(5)),
                ("null", seconds(0)),
                (r#""1970-01-01 00:00:00""#, seconds(0)),
                (r#""2106-02-07 06:28:15""#, seconds(u32::MAX)),
                (r#""2106-02-07 06:28:16""#, Err(OutOfRange)),
                (r#""1969-12-31 23:59:59""#, Err(OutOfRange)),
                (r#""2020-02-30 00:00:00""#, Err(OutOfRange)),
                (r#""2020-12-01 24:00:00""#, seconds(1_606_867_200)),
                (r#""2020-12-01 24:00:01""#, Err(OutOfRange)),
                (r#""Tue, 01 Dec 2020 23:09:54 GMT""#, seconds(1_606_864_194)),
                ("-1", Err(OutOfRange)),
                ("4294967296", Err(OutOfRange)),
                ("1606864194123", seconds(1_606_864_194)),
                ("1606864194123456", seconds(1_606_864_194)),
                ("1606864194123456789", seconds(1_606_864_194)),
                ("1606864194.5", seconds(1_606_864_194)),
                ("1e9", seconds(1_000_000_000)),
                ("-0", seconds(0)),
                ("-0.5", Err(OutOfRange)),
                ("99999999999", Err(OutOfRange)),
                ("1e400", Err(OutOfRange)),
                (r#""1606864194.5""#, Err(TypeMismatch)),
                ("true", Err(TypeMismatch)),
                (r#""""#, Err(TypeMismatch)),
                ("[]", Err(TypeMismatch)),
            ],
        );
    }
    check(
        "DateTime('Europe/Moscow')",
        &[
            (r#""2020-12-02 02:09:54""#, seconds(1_606_864_194)),
            (r#""2020-12-01T23:09:54Z""#, seconds(1_606_864_194)),
            (r#""2020-12-01T23:09:54.5Z""#, seconds(1_606_864_194)),
            ("1606864194", seconds(1_606_864_194)),
        ],
    );
}

#[test]
fn date_time64_values_are_ticks() {
    let ticks = |value| Ok(Value::DateTime64(value));
    check(
        "DateTime64(3, 'UTC')",
        &[
            (r#""2020-12-01 23:09:54""#, ticks(1_606_864_194_000)),
            (r#""2020-12-01 23:09:54.1""#, ticks(1_606_864_194_100)),
            (r#""2020-12-01T23:09:54.9999Z""#, ticks(1_606_864_194_999)),
            (r#""2020-12-01 23:09:54.5+03:00""#, ticks(1_606_853_394_500)),
            (r#""1969-12-31 23:59:59.5""#, ticks(-500)),
            (r#""1606864194.123""#, ticks(1_606_864_194_123)),
            (r#""1606864194123456""#, ticks(1_606_864_194_123)),
            ("1606864194123", ticks(1_606_864_194_123)),
            ("-1", ticks(-1000)),
            ("5", ticks(5000)),
            ("1606864194.5", ticks(1_606_864_194_500)),
            ("1606864194123.9", ticks(1_606_864_194_123)),
            ("1606864194123456789", ticks(1_606_864_194_123)),
            ("null", ticks(0)),
            (r#""1900-01-01 00:00:00""#, ticks(-2_208_988_800_000)),
            (r#""2299-12-31 23:59:59.999""#, ticks(10_413_791_999_999)),
            (r#""1899-12-31 23:59:59.999""#, Err(OutOfRange)),
            (r#""2300-01-01 00:00:00""#, Err(OutOfRange)),
            (r#""0001-01-01 00:00:00""#, Err(OutOfRange)),
            (r#""9999-12-31 23:59:59.999""#, Err(OutOfRange)),
            ("9223372036854775807", ticks(9_223_372_036_854)),
            ("10413792000", Err(OutOfRange)),
            ("-2208988801", Err(OutOfRange)),
            ("true", Err(TypeMismatch)),
            (r#""1606864194.x""#, Err(TypeMismatch)),
        ],
    );
    check(
        "DateTime64(9, 'UTC')",
        &[
            (r#""2020-12-01T23:09:54.123456789Z""#, ticks(1_606_864_194_123_456_789)),
            (r#""1900-01-01 00:00:00""#, ticks(-2_208_988_800_000_000_000)),
            (r#""2262-04-12 23:47:16""#, Err(OutOfRange)),
        ],
    );
    // The years are those of the column's own clock.
    check(
        "DateTime64(0, 'Asia/Tokyo')",
        &[
            (r#""2299-12-31 23:59:59""#, ticks(10_413_759_599)),
            (r#""2299-12-31T15:00:00Z""#, Err(OutOfRange)),
            (r#""1900-01-01 00:00:00""#, ticks(-2_209_021_200)),
            (r#""1899-12-31 23:59:59""#, Err(OutOfRange)),
        ],
    );
    check(
        "DateTime64(0, 'UTC')",
        &[(r#""2020-12-01 23:09:54.7""#, ticks(1_606_864_194)), ("1606864194", ticks(1_606_864_194))],
    );
}

#[test]
fn date_values_are_days() {
    let days = |value| Ok(Value::Date(value));
    check(
        "Date",
        &[
            (r#""2020-12-01""#, days(18_597)),
            (r#""2020/12/1""#, days(18_597)),
            (r#""20201201""#, days(18_597)),
            ("18597", days(18_597)),
            ("true", days(1)),
            ("null", days(0)),
            (r#""2149-06-06""#, days(65_535)),
            (r#""2149-06-07""#, Err(OutOfRange)),
            (r#""1969-12-31""#, Err(OutOfRange)),
            (r#""2020-02-30""#, Err(OutOfRange)),
            ("65536", Err(OutOfRange)),
            ("-1", Err(OutOfRange)),
            (r#""2020-12-01 23:09:54""#, Err(TypeMismatch)),
            (r#""18597""#, Err(TypeMismatch)),
            (r#""""#, Err(TypeMismatch)),
            ("1.5", Err(TypeMismatch)),
        ],
    );
    let days = |value| Ok(Value::Date32(value));
    check(
        "Date32",
        &[
            (r#""2020-12-01""#, days(18_597)),
            (r#""1900-01-01""#, days(-25_567)),
            (r#""2299-12-31""#, days(120_529)),
            ("-5", days(-5)),
            ("null", days(0)),
            (r#""1899-12-31""#, Err(OutOfRange)),
            (r#""2300-01-01""#, Err(OutOfRange)),
            ("120530", Err(OutOfRange)),
        ],
    );
}
