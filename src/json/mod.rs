// SPDX-License-Identifier: MulanPSL-2.0
//! JSON as the reference reads and writes it: lenient in, byte-exact out. Pure.
//!
//! [`parse`] gives a tree that keeps the order of members; [`Value`]'s accessors follow the rules of the reference's
//! generated parsers: a member of the wrong type counts as absent, of duplicate keys the first wins, numbers that do
//! not fit fail. [`to_text`] writes what the reference's generator writes, byte for byte.
//!
//! Different from the reference on purpose: nesting is limited to 128 levels (it crashes at a million).

mod parse;
mod write;

pub use parse::{MAX_TEXT, parse};
pub use write::{ObjectWriter, to_text};

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};

/// A JSON value. Strings end at an embedded NUL, as C sees them; those without escapes are borrowed from the text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any number.
    Number(Number),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object: members in order, duplicates included.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// A JSON number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number that is not negative.
    Unsigned(u64),
    /// A negative whole number.
    Negative(i64),
    /// A fraction, an exponent, or a whole number that fits neither.
    Float(f64),
}

/// Members of a map from strings to `T`, in order.
pub type Map<T> = Vec<(String, T)>;

impl<'a> Value<'a> {
    /// The same that borrows nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(value),
            Value::Number(number) => Value::Number(number),
            Value::String(text) => Value::String(Cow::Owned(text.into_owned())),
            Value::Array(elements) => Value::Array(elements.into_iter().map(Value::into_owned).collect()),
            Value::Object(members) => {
                let owned = |(key, value): (Cow<'_, str>, Value<'_>)| {
                    (Cow::Owned(key.into_owned()), value.into_owned())
                };
                Value::Object(members.into_iter().map(owned).collect())
            }
        }
    }

    /// The first member `key`; `None` when there is none or this is no object.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        match self {
            Value::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// This value as text; `None` when it is no string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements; `None` when this is no array.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members; `None` when this is no object.
    pub fn as_object(&self) -> Option<&[(Cow<'a, str>, Value<'a>)]> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Member `key` as text; absent or no string: `None`.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// Member `key` as owned text; absent or no string: `None`.
    pub fn string(&self, key: &str) -> Option<String> {
        self.str(key).map(str::to_owned)
    }

    /// Member `key` as text, which must be there: absent or no string is `InvalidData`.
    pub fn required_string(&self, key: &str) -> Result<String> {
        self.string(key).ok_or_else(|| missing(key))
    }

    /// Member `key` as an array of strings: absent or no array is empty, elements that are no strings become `""`.
    pub fn strings(&self, key: &str) -> Vec<String> {
        self.array(key).iter().map(|element| element.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The elements of member `key`; absent or no array: none.
    pub fn array(&self, key: &str) -> &[Value<'a>] {
        self.get(key).and_then(Value::as_array).unwrap_or_default()
    }

    /// Member `key` if it is an object.
    pub fn object(&self, key: &str) -> Option<&Value<'a>> {
        self.get(key).filter(|value| value.as_object().is_some())
    }

    /// Member `key`, which must be an object: else `InvalidData`.
    pub fn required_object(&self, key: &str) -> Result<&Value<'a>> {
        self.object(key).ok_or_else(|| missing(key))
    }

    /// Member `key` as a flag; absent or no boolean: false.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Value::Bool(true)))
    }

    /// Keys of the object `key`, whatever their values; absent or no object: `None`.
    pub fn keys(&self, key: &str) -> Option<Vec<String>> {
        let members = self.get(key)?.as_object()?;
        Some(members.iter().map(|(name, _)| name.clone().into_owned()).collect())
    }

    /// The object `key` as a map of strings; absent or no object: `None`; a member that is no string: `InvalidData`.
    pub fn string_map(&self, key: &str) -> Result<Option<Map<String>>> {
        self.map(key, |value| value.as_str().map(str::to_owned))
    }

    /// The object `key` as a map of numbers; absent or no object: `None`; a member that is no whole number:
    /// `InvalidData`.
    pub fn int_map(&self, key: &str) -> Result<Option<Map<i64>>> {
        self.map(key, |value| match value {
            Value::Number(number) => number.to_i64(),
            _ => None,
        })
    }

    fn map<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<Map<T>>> {
        let Some(members) = self.get(key).and_then(Value::as_object) else { return Ok(None) };
        let read_member = |(name, value): &(Cow<'_, str>, Value<'_>)| {
            let value = read(value).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidData,
                    format!("member {name:?} of {key:?} has a wrong type or value"),
                )
            })?;
            Ok((name.clone().into_owned(), value))
        };
        members.iter().map(read_member).collect::<Result<_>>().map(Some)
    }

    /// Member `key` as a number; absent or no number: 0; a fraction or out of range: `InvalidData`.
    pub fn int64(&self, key: &str) -> Result<i64> {
        self.number(key, Number::to_i64)
    }

    /// The same for 32 bits.
    pub fn int32(&self, key: &str) -> Result<i32> {
        self.number(key, |number| i32::try_from(number.to_i64()?).ok())
    }

    /// The same without sign. A negative number wraps around, as C's `strtoull` has it.
    pub fn uint64(&self, key: &str) -> Result<u64> {
        self.number(key, Number::to_u64_wrapping)
    }

    /// The same without sign for 32 bits; a negative number is out of range.
    pub fn uint32(&self, key: &str) -> Result<u32> {
        self.number(key, |number| u32::try_from(number.to_u64_wrapping()?).ok())
    }

    fn number<T: Default>(&self, key: &str, read: impl Fn(Number) -> Option<T>) -> Result<T> {
        match self.get(key) {
            Some(Value::Number(number)) => read(*number).ok_or_else(|| {
                Error::new(ErrorKind::InvalidData, format!("number {key:?} is a fraction or out of range"))
            }),
            _ => Ok(T::default()),
        }
    }
}

impl Number {
    /// The number if it is whole and fits.
    pub fn to_i64(self) -> Option<i64> {
        match self {
            Number::Unsigned(number) => i64::try_from(number).ok(),
            Number::Negative(number) => Some(number),
            Number::Float(_) => None,
        }
    }

    fn to_u64_wrapping(self) -> Option<u64> {
        match self {
            Number::Unsigned(number) => Some(number),
            Number::Negative(number) => Some(number.cast_unsigned()),
            Number::Float(_) => None,
        }
    }
}

fn missing(key: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("required member {key:?} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value<'_> {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_member_of_a_wrong_type_is_absent() {
        let v = value(r#"{"s":5,"n":"7","b":"true","a":{},"o":[],"null":null}"#);
        assert_eq!(v.string("s"), None);
        assert_eq!(v.uint64("n").unwrap(), 0);
        assert!(!v.flag("b"));
        assert_eq!(v.strings("a"), Vec::<String>::new());
        assert!(v.object("o").is_none());
        assert_eq!(v.string_map("o").unwrap(), None);
        assert_eq!(v.string("null"), None);
        for top in ["{}", "[]", "\"x\"", "null", "5"] {
            assert_eq!(value(top).string("id"), None, "{top}");
            assert_eq!(value(top).int64("id").unwrap(), 0, "{top}");
        }
    }

    #[test]
    fn the_first_of_duplicate_keys_wins() {
        assert_eq!(value(r#"{"a":"1","a":"2"}"#).str("a"), Some("1"));
        assert_eq!(value(r#"{"a":5,"a":"2"}"#).str("a"), None);
    }

    #[test]
    fn arrays_of_strings_keep_their_length() {
        assert_eq!(value(r#"{"a":["x",5,null,{},"y"]}"#).strings("a"), ["x", "", "", "", "y"]);
        assert_eq!(value(r#"{"a":[]}"#).strings("a"), Vec::<String>::new());
    }

    #[test]
    fn a_map_with_a_wrong_value_fails() {
        assert_eq!(value(r#"{"m":{}}"#).string_map("m").unwrap(), Some(vec![]));
        let pairs = vec![("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())];
        assert_eq!(value(r#"{"m":{"b":"2","a":"1"}}"#).string_map("m").unwrap(), Some(pairs));
        for bad in [r#"{"m":{"a":1}}"#, r#"{"m":{"a":null}}"#] {
            assert_eq!(value(bad).string_map("m").unwrap_err().kind(), ErrorKind::InvalidData, "{bad}");
        }
        for bad in [
            r#"{"m":{"a":"1"}}"#,
            r#"{"m":{"a":1.5}}"#,
            r#"{"m":{"a":1e3}}"#,
            r#"{"m":{"a":9223372036854775808}}"#,
        ] {
            assert!(value(bad).int_map("m").is_err(), "{bad}");
        }
        assert_eq!(value(r#"{"m":{"a":-5}}"#).int_map("m").unwrap(), Some(vec![("a".to_owned(), -5)]));
        assert_eq!(value(r#"{"m":{"80/tcp":{},"x":null}}"#).keys("m").unwrap(), ["80/tcp", "x"]);
    }

    #[test]
    fn numbers_wrap_or_fail_as_in_c() {
        assert_eq!(value(r#"{"n":-1}"#).uint64("n").unwrap(), u64::MAX);
        assert_eq!(value(r#"{"n":18446744073709551615}"#).uint64("n").unwrap(), u64::MAX);
        for bad in ["1.5", "1e2", "18446744073709551616", "1.0"] {
            assert!(value(&format!(r#"{{"n":{bad}}}"#)).uint64("n").is_err(), "{bad}");
        }
        assert_eq!(value(r#"{"n":-9223372036854775808}"#).int64("n").unwrap(), i64::MIN);
        assert!(value(r#"{"n":9223372036854775808}"#).int64("n").is_err());
        assert_eq!(value(r#"{"n":-2147483648}"#).int32("n").unwrap(), i32::MIN);
        assert!(value(r#"{"n":2147483648}"#).int32("n").is_err());
        assert_eq!(value(r#"{"n":4294967295}"#).uint32("n").unwrap(), u32::MAX);
        assert!(value(r#"{"n":4294967296}"#).uint32("n").is_err());
        assert!(value(r#"{"n":-1}"#).uint32("n").is_err());
    }

    #[test]
    fn required_members_are_reported_by_name() {
        let error = value(r#"{"a":1}"#).required_string("a").unwrap_err();
        assert_eq!(error.report(), "required member \"a\" is missing");
        assert!(value(r#"{"a":[]}"#).required_object("a").is_err());
        assert!(value(r#"{"a":{}}"#).required_object("a").is_ok());
    }
}
