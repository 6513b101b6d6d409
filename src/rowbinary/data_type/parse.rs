//! The parser of types: a name, and arguments in parentheses, which may be types again.

use super::{DataType, TYPE_DEPTH_MAX};

/// Bytes of the longest FixedString that ClickHouse makes.
const FIXED_STRING_MAX: usize = 0xff_ffff;

pub(super) fn parse(text: &str) -> Result<DataType, String> {
    let mut parser = Parser { text, at: 0 };
    let parsed = parser.data_type(1)?;
    parser.skip_space();
    if parser.at == text.len() { Ok(parsed) } else { Err(parser.error("the end of the type")) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, expected: &str) -> String {
        format!("{expected} is expected at character {} of the type", self.at + 1)
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Skips `expected` after white space, if it is there.
    fn takes(&mut self, expected: char) -> bool {
        self.skip_space();
        let taken = self.rest().starts_with(expected);
        if taken {
            self.at += expected.len_utf8();
        }
        taken
    }

    fn expect(&mut self, expected: char) -> Result<(), String> {
        if self.takes(expected) { Ok(()) } else { Err(self.error(&format!("`{expected}`"))) }
    }

    /// Skips a word of letters, digits and underscores, which may be empty.
    fn word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn data_type(&mut self, depth: usize) -> Result<DataType, String> {
        if depth > TYPE_DEPTH_MAX {
            return Err(format!("the type has more than {TYPE_DEPTH_MAX} levels"));
        }
        let name = self.word();
        if let Some(plain) = without_arguments(name)
            && !(matches!(plain, DataType::Json { .. } | DataType::Dynamic) && self.rest().starts_with('('))
        {
            return Ok(plain);
        }
        if name == "DateTime" && !self.takes('(') {
            return Ok(DataType::DateTime { zone: None });
        } else if name != "DateTime" && !self.takes('(') {
            return Err(unknown(name));
        }
        let parsed = match name {
            "DateTime" => DataType::DateTime { zone: Some(self.quoted('\'')?) },
            "DateTime64" => {
                let precision = self.number(0, 9)?;
                let zone = if self.takes(',') { Some(self.quoted('\'')?) } else { None };
                DataType::DateTime64 { precision, zone }
            }
            "Time64" => DataType::Time64 { precision: self.number(0, 9)? },
            "FixedString" => DataType::FixedString(self.number(1, FIXED_STRING_MAX)?),
            "Decimal" => {
                let precision = self.number(1, 76)?;
                let scale = if self.takes(',') { self.number(0, precision)? } else { 0 };
                DataType::Decimal { precision, scale }
            }
            "Enum8" => DataType::Enum8(self.enumeration(i16::from(i8::MIN), i16::from(i8::MAX))?),
            "Enum16" => DataType::Enum16(self.enumeration(i16::MIN, i16::MAX)?),
            "Nullable" => DataType::Nullable(Box::new(self.data_type(depth + 1)?)),
            "LowCardinality" => DataType::LowCardinality(Box::new(self.data_type(depth + 1)?)),
            "Array" => DataType::Array(Box::new(self.data_type(depth + 1)?)),
            "Map" => {
                let key = self.data_type(depth + 1)?;
                self.expect(',')?;
                DataType::Map(Box::new(key), Box::new(self.data_type(depth + 1)?))
            }
            "Tuple" => DataType::Tuple(self.elements(depth + 1)?),
            "Nested" => DataType::Array(Box::new(DataType::Tuple(self.elements(depth + 2)?))),
            "SimpleAggregateFunction" => {
                self.skip_argument();
                self.expect(',')?;
                self.data_type(depth)?
            }
            "Variant" => {
                let mut types = vec![self.data_type(depth + 1)?];
                while self.takes(',') {
                    types.push(self.data_type(depth + 1)?);
                }
                DataType::Variant(types)
            }
            "JSON" => {
                let mut paths = Vec::new();
                self.skip_space();
                while !self.rest().starts_with(')') {
                    paths.extend(self.json_argument(depth + 1)?);
                    if !self.takes(',') {
                        break;
                    }
                    self.skip_space();
                }
                DataType::Json { paths }
            }
            "Dynamic" => {
                self.skip_argument();
                DataType::Dynamic
            }
            "AggregateFunction" => {
                self.skip_argument();
                while self.takes(',') {
                    self.skip_argument();
                }
                DataType::AggregateFunction
            }
            other => return Err(unknown(other)),
        };
        self.expect(')')?;
        Ok(parsed)
    }

    /// The elements of a Tuple up to its closing parenthesis: all named, or none.
    fn elements(&mut self, depth: usize) -> Result<Vec<(Option<String>, DataType)>, String> {
        let mut elements = Vec::new();
        self.skip_space();
        while !self.rest().starts_with(')') {
            let name = self.element_name()?;
            elements.push((name, self.data_type(depth)?));
            if !self.takes(',') {
                break;
            }
            self.skip_space();
        }
        let named = elements.iter().filter(|(name, _)| name.is_some()).count();
        if named == 0 || named == elements.len() {
            Ok(elements)
        } else {
            Err("some elements of a Tuple have names".to_owned())
        }
    }

    /// The name in front of an element's type; `None` if the type comes at once.
    fn element_name(&mut self) -> Result<Option<String>, String> {
        self.skip_space();
        if self.rest().starts_with('`') {
            return self.quoted('`').map(Some);
        }
        let start = self.at;
        let name = self.word();
        self.skip_space();
        if self.rest().starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Some(name.to_owned()));
        }
        self.at = start;
        Ok(None)
    }

    /// A path of a JSON type and the type of its values; `None` for a parameter, and for what is left out.
    fn json_argument(&mut self, depth: usize) -> Result<Option<(String, DataType)>, String> {
        self.skip_space();
        let path = if self.rest().starts_with('`') {
            self.quoted('`')?
        } else {
            let word = self.word();
            self.skip_space();
            if word == "SKIP" || self.rest().starts_with('=') {
                self.skip_argument();
                return Ok(None);
            }
            word.to_owned()
        };
        Ok(Some((path, self.data_type(depth)?)))
    }

    fn number<N: std::str::FromStr + PartialOrd>(&mut self, least: N, most: N) -> Result<N, String> {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
        let number = rest.get(..end).and_then(|digits| digits.parse().ok()).filter(|n| (&least..=&most).contains(&n));
        let number = number.ok_or_else(|| self.error("a number in the range of the type"))?;
        self.at += end;
        Ok(number)
    }

    fn enumeration(&mut self, least: i16, most: i16) -> Result<Vec<(String, i16)>, String> {
        let mut elements = Vec::new();
        loop {
            let name = self.quoted('\'')?;
            self.expect('=')?;
            elements.push((name, self.number(least, most)?));
            if !self.takes(',') {
                return Ok(elements);
            }
        }
    }

    /// A text between quotes, its escapes decoded as in SQL.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.expect(quote)?;
        let mut text = String::new();
        let mut characters = self.rest().chars();
        while let Some(character) = characters.next() {
            self.at += character.len_utf8();
            if character == quote {
                return Ok(text);
            }
            if character != '\\' {
                text.push(character);
                continue;
            }
            let Some(escaped) = characters.next() else { break };
            self.at += escaped.len_utf8();
            text.push(match escaped {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'a' => '\u{7}',
                'v' => '\u{b}',
                'e' => '\u{1b}',
                other => other,
            });
        }
        Err(self.error("a closing quote"))
    }

    /// Skips an argument of any kind, up to the comma or parenthesis behind it. The parenthesis depth is a
    /// number, not a recursion.
    fn skip_argument(&mut self) {
        let (mut open, mut quote, mut escaped) = (0usize, None, false);
        for (at, character) in self.rest().char_indices() {
            match (quote, character) {
                (Some(_), _) if escaped => escaped = false,
                (Some(_), '\\') => escaped = true,
                (Some(end), _) if character == end => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '`') => quote = Some(character),
                (None, '(') => open += 1,
                (None, ')' | ',') if open == 0 => {
                    self.at += at;
                    return;
                }
                (None, ')') => open -= 1,
                (None, _) => {}
            }
        }
        self.at = self.text.len();
    }
}

fn unknown(name: &str) -> String {
    format!("no values of `{name}` are read")
}

fn without_arguments(name: &str) -> Option<DataType> {
    let point = || DataType::Tuple(vec![(None, DataType::Float64), (None, DataType::Float64)]);
    let array = |inner| DataType::Array(Box::new(inner));
    Some(match name {
        "String" => DataType::String,
        "Int8" => DataType::Signed(1),
        "Int16" => DataType::Signed(2),
        "Int32" => DataType::Signed(4),
        "Int64" => DataType::Signed(8),
        "Int128" => DataType::Signed(16),
        "Int256" => DataType::Signed(32),
        "UInt8" => DataType::Unsigned(1),
        "UInt16" => DataType::Unsigned(2),
        "UInt32" => DataType::Unsigned(4),
        "UInt64" => DataType::Unsigned(8),
        "UInt128" => DataType::Unsigned(16),
        "UInt256" => DataType::Unsigned(32),
        "Float32" => DataType::Float32,
        "Float64" => DataType::Float64,
        "BFloat16" => DataType::BFloat16,
        "Bool" => DataType::Bool,
        "UUID" => DataType::Uuid,
        "Date" => DataType::Date,
        "Date32" => DataType::Date32,
        "Time" => DataType::Time,
        // A number of the unit that the name says.
        "IntervalNanosecond"
        | "IntervalMicrosecond"
        | "IntervalMillisecond"
        | "IntervalSecond"
        | "IntervalMinute"
        | "IntervalHour"
        | "IntervalDay"
        | "IntervalWeek"
        | "IntervalMonth"
        | "IntervalQuarter"
        | "IntervalYear" => DataType::Signed(8),
        "IPv4" => DataType::Ipv4,
        "IPv6" => DataType::Ipv6,
        "JSON" => DataType::json(),
        "Dynamic" => DataType::Dynamic,
        "Geometry" => {
            let line = array(point());
            let polygon = array(line.clone());
            let polygons = array(polygon.clone());
            // LineString, MultiLineString, MultiPolygon, Point, Polygon and Ring.
            DataType::Variant(vec![line.clone(), polygon.clone(), polygons, point(), polygon, line])
        }
        "Point" => point(),
        "Ring" | "LineString" => array(point()),
        "Polygon" | "MultiLineString" => array(array(point())),
        "MultiPolygon" => array(array(array(point()))),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, kind: DataType) -> (Option<String>, DataType) {
        (Some(name.to_owned()), kind)
    }

    #[test]
    fn types_are_parsed_as_clickhouse_spells_them() {
        let array = |inner| DataType::Array(Box::new(inner));
        for (text, expected) in [
            ("UInt8", DataType::Unsigned(1)),
            ("Int256", DataType::Signed(32)),
            ("DateTime", DataType::DateTime { zone: None }),
            ("DateTime('Europe/Berlin')", DataType::DateTime { zone: Some("Europe/Berlin".to_owned()) }),
            ("DateTime64(3)", DataType::DateTime64 { precision: 3, zone: None }),
            ("DateTime64(9, 'UTC')", DataType::DateTime64 { precision: 9, zone: Some("UTC".to_owned()) }),
            ("Time64(6)", DataType::Time64 { precision: 6 }),
            ("Decimal(38, 10)", DataType::Decimal { precision: 38, scale: 10 }),
            ("FixedString(16)", DataType::FixedString(16)),
            ("Array(Array(Int8))", array(array(DataType::Signed(1)))),
            ("LowCardinality(Nullable(String))", {
                DataType::LowCardinality(Box::new(DataType::Nullable(Box::new(DataType::String))))
            }),
            ("Map(String, UInt64)", DataType::Map(Box::new(DataType::String), Box::new(DataType::Unsigned(8)))),
            ("Tuple()", DataType::Tuple(Vec::new())),
            ("Tuple(UInt8, String)", DataType::Tuple(vec![(None, DataType::Unsigned(1)), (None, DataType::String)])),
            (
                "Tuple(a UInt8, `b c` Tuple(`\\`d\\\\` Bool))",
                DataType::Tuple(vec![
                    named("a", DataType::Unsigned(1)),
                    named("b c", DataType::Tuple(vec![named("`d\\", DataType::Bool)])),
                ]),
            ),
            ("Nested(a UInt8)", array(DataType::Tuple(vec![named("a", DataType::Unsigned(1))]))),
            ("JSON", DataType::json()),
            ("Dynamic", DataType::Dynamic),
            ("Array(Dynamic(max_types=5))", array(DataType::Dynamic)),
            ("JSON(max_dynamic_paths=10, max_dynamic_types=2, SKIP a.b, SKIP REGEXP 'x(,')", DataType::json()),
            ("IntervalDay", DataType::Signed(8)),
            ("Array(JSON)", array(DataType::json())),
            (
                "JSON(REGEXP String, `SKIP` Array(JSON(a UInt8)), SKIP x, `k.l m` UInt8, max_dynamic_paths UInt8)",
                DataType::Json {
                    paths: vec![
                        ("REGEXP".to_owned(), DataType::String),
                        (
                            "SKIP".to_owned(),
                            array(DataType::Json { paths: vec![("a".to_owned(), DataType::Unsigned(1))] }),
                        ),
                        ("k.l m".to_owned(), DataType::Unsigned(1)),
                        ("max_dynamic_paths".to_owned(), DataType::Unsigned(1)),
                    ],
                },
            ),
            ("Variant(Array(String), UInt8)", DataType::Variant(vec![array(DataType::String), DataType::Unsigned(1)])),
            ("SimpleAggregateFunction(sum, UInt64)", DataType::Unsigned(8)),
            ("SimpleAggregateFunction(f(0.5, ')'), Array(UInt8))", array(DataType::Unsigned(1))),
            ("AggregateFunction(quantiles(0.5, 0.9), UInt64, String)", DataType::AggregateFunction),
            ("Polygon", array(array(DataType::Tuple(vec![(None, DataType::Float64), (None, DataType::Float64)])))),
        ] {
            assert_eq!(DataType::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn names_of_an_enum_have_the_escapes_of_sql() {
        let names = |text: &str| match DataType::parse(text) {
            Ok(DataType::Enum8(elements) | DataType::Enum16(elements)) => elements,
            other => panic!("{text}: {other:?}"),
        };
        let of = |pairs: &[(&str, i16)]| -> Vec<(String, i16)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        assert_eq!(names("Enum8('a' = 1)"), of(&[("a", 1)]));
        assert_eq!(
            names(r"Enum16('it\'s' = -1000, 'x, \'y\' = 3' = 2, 'back\\t' = 3)"),
            of(&[("it's", -1000), ("x, 'y' = 3", 2), ("back\\t", 3)])
        );
        assert_eq!(names(r"Enum8('\b\f\n\r\t\0\a\v\eü' = 1)"), of(&[("\u{8}\u{c}\n\r\t\0\u{7}\u{b}\u{1b}ü", 1)]));
    }

    #[test]
    fn what_is_no_type_is_refused_and_so_is_one_that_is_too_deep() {
        for text in [
            "",
            "Uint8",
            "UInt8)",
            "Array",
            "Array(",
            "Array()",
            "Array(UInt8",
            "Array(UInt8))",
            "Map(String)",
            "Enum8('a')",
            "Enum8('a' = 200)",
            "Enum8('a",
            "Enum8('a\\",
            "Decimal(77, 0)",
            "Decimal(9, 10)",
            "DateTime64(10)",
            "DateTime(UTC)",
            "FixedString(0)",
            "FixedString(99999999999999999999999)",
            "Tuple(a UInt8, String)",
            "Tuple(`a)",
            "QBit(Float32, 4)",
            "Nothing",
            "JSON(a.b UInt8)",
            "JSON(a)",
            "JSON(a UInt8",
            "JSON(a UInt8 b UInt8)",
            "JSON(",
            "Dynamic(",
            "Variant()",
        ] {
            assert!(DataType::parse(text).is_err(), "{text}");
        }
        let nested = |levels: usize| format!("{}UInt8{}", "Array(".repeat(levels), ")".repeat(levels));
        assert!(DataType::parse(&nested(TYPE_DEPTH_MAX - 1)).is_ok());
        assert!(DataType::parse(&nested(TYPE_DEPTH_MAX)).unwrap_err().contains("levels"));
        assert!(DataType::parse(&nested(1_000_000)).is_err());
    }

    #[test]
    fn any_cut_of_a_type_is_refused_or_parsed() {
        let text =
            r"Tuple(a Map(String, Enum8('x\'' = 1)), `b` Array(Nullable(DateTime64(3, 'UTC'))), c JSON(a.b UInt8))";
        for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let _ = DataType::parse(&text[..cut]);
        }
    }
}
