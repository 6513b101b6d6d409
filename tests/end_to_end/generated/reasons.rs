//! Why a value is something else in ClickHouse, or may be; see the list in `src/ndjson/mod.rs`.

pub const WRAPPED: &str = "what is outside of the type is neither wrapped nor clamped nor cut";
pub const UNIX_TIMES: &str = "a bare number is Unix time by its magnitude";
pub const NO_YEAR: &str = "a text without a year is no time";
pub const INTEGRAL: &str = "a number with an integer value is an integer";
pub const NULL_IN_ENUM: &str = "null in an Enum is the default";
pub const EMPTY_TUPLE: &str = "a Tuple as an array has all its elements";
pub const NAMED_TUPLE_AS_ARRAY: &str = "a Tuple with names may be an array";
pub const ESCAPED: &str = "escapes are decoded in every string";
pub const UNPAIRED: &str = "an unpaired surrogate does not matter where nothing of it is stored";
pub const DUPLICATE: &str = "a key comes once";
pub const DECIMAL_TEXT: &str = "a text that only begins like a number is none";
pub const DECIMAL_FORM: &str = "how a number is written does not decide whether it fits a Decimal";
pub const CARRIED: &str = "a minute or second that does not exist is not carried over";
pub const VARIANT_OF_DECIMALS: &str = "a Decimal in a Variant takes what a Decimal takes elsewhere";
pub const VARIANT_OF_TIMES: &str = "a time in a Variant takes what a time takes elsewhere";
pub const TYPED_PATH: &str = "a value of a path with a type in a JSON is one that a column of the type takes too";
pub const DYNAMIC: &str = "an object in a Dynamic is a JSON, and the elements of an array are Nullable";

/// Each of them makes a difference in the tests.
pub const ALL: [&str; 17] = [
    WRAPPED,
    UNIX_TIMES,
    NO_YEAR,
    INTEGRAL,
    NULL_IN_ENUM,
    EMPTY_TUPLE,
    NAMED_TUPLE_AS_ARRAY,
    ESCAPED,
    UNPAIRED,
    DUPLICATE,
    DECIMAL_TEXT,
    DECIMAL_FORM,
    CARRIED,
    VARIANT_OF_DECIMALS,
    VARIANT_OF_TIMES,
    TYPED_PATH,
    DYNAMIC,
];
