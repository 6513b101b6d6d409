//! What a promise has to hold in: each way to insert and, where the build has it, each engine.
//!
//! A test that depends on one of them takes a [`Variant`] for the flags of its servers, and stands in
//! one of the lists [`each_insert`], [`each_engine`] or [`each_insert_and_engine`] of its file. Each of
//! its variants is a test with a name of its own, which stands in whatever it says:
//! `events::every_column_of_an_event_is_in_the_table::as_native_zstd`.

/// How a server inserts and which engine serves, as flags.
#[derive(Clone, Copy)]
pub struct Variant(&'static [&'static str]);

impl Variant {
    /// The defaults: RowBinary as it is, through the own loop.
    pub const USUAL: Self = Self(&[]);
    /// The other format, which is made from the first, and a compression.
    pub const NATIVE_ZSTD: Self = Self(&["--insert-format", "native", "--insert-compression", "zstd"]);
    #[cfg(feature = "engine-may")]
    pub const ENGINE_MAY: Self = Self(&["--engine", "may"]);

    /// Its flags behind these.
    pub fn and<'a>(self, flags: &[&'a str]) -> Vec<&'a str> {
        [flags, self.0].concat()
    }
}

/// These tests depend on what an INSERT is made of.
macro_rules! each_insert {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            use crate::support::Variant;

            #[test]
            fn as_plain_rowbinary() {
                super::$test(Variant::USUAL);
            }

            #[test]
            fn as_native_zstd() {
                super::$test(Variant::NATIVE_ZSTD);
            }
        })+
    };
}

/// These tests depend on who reads requests and writes replies.
macro_rules! each_engine {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            use crate::support::Variant;

            #[test]
            fn through_own_loop() {
                super::$test(Variant::USUAL);
            }

            #[cfg(feature = "engine-may")]
            #[test]
            fn through_engine_may() {
                super::$test(Variant::ENGINE_MAY);
            }
        })+
    };
}

/// These tests depend on both.
macro_rules! each_insert_and_engine {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            use crate::support::Variant;

            #[test]
            fn with_the_defaults() {
                super::$test(Variant::USUAL);
            }

            #[test]
            fn as_native_zstd() {
                super::$test(Variant::NATIVE_ZSTD);
            }

            #[cfg(feature = "engine-may")]
            #[test]
            fn through_engine_may() {
                super::$test(Variant::ENGINE_MAY);
            }
        })+
    };
}

pub(crate) use {each_engine, each_insert, each_insert_and_engine};
