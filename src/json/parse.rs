// SPDX-License-Identifier: MulanPSL-2.0
//! Text to tree.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Number, Value};
use crate::error::{Error, ErrorKind, Result};

/// Texts of this many bytes and more are refused, as by the reference.
pub const MAX_TEXT: usize = 10 * 1024 * 1024;

/// Parses a JSON text as the reference does: content ends at an embedded NUL, comments in the style of C and C++ are
/// skipped, a surrogate without its pair becomes `?`; empty input, trailing commas, trailing garbage and invalid
/// UTF-8 are errors (`InvalidData`), as is nesting deeper than 128. [`MAX_TEXT`] or longer: `LimitExceeded`.
pub fn parse(text: &[u8]) -> Result<Value<'_>> {
    // Most texts are plain, and what holds a NUL anywhere is not.
    if text.len() < MAX_TEXT
        && let Ok(value) = parse_plain(text)
    {
        return Ok(value);
    }
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    if text.len() >= MAX_TEXT {
        let message = format!("parse JSON of {} bytes: the limit is {MAX_TEXT}", text.len());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let parsed = parse_plain(text).or_else(|error| match plain(text) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(text) => parse_plain(&text).map(Value::into_owned),
    });
    parsed.map_err(|error| Error::with_source(ErrorKind::InvalidData, "parse JSON", error))
}

/// Refuses whatever [`plain`] would replace.
fn parse_plain(text: &[u8]) -> serde_json::Result<Value<'_>> {
    // To check the encoding of the whole at once is faster than that of each string.
    match std::str::from_utf8(text) {
        Ok(text) => read(serde_json::Deserializer::from_str(text)),
        Err(_) => read(serde_json::Deserializer::from_slice(text)),
    }
}

fn read<'a>(
    mut source: serde_json::Deserializer<impl serde_json::de::Read<'a>>,
) -> serde_json::Result<Value<'a>> {
    let value = Value::deserialize(&mut source)?;
    source.end().map(|()| value)
}

/// Replaces what `serde_json` does not take: comments by a blank, lone surrogate escapes by `?`.
fn plain(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut at = 0;
    let mut in_string = false;
    while let Some(&byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        let (skip, replacement) = match (in_string, byte) {
            (true, b'\\') => match escape(rest) {
                Escape::Keep(len) => {
                    at += len;
                    continue;
                }
                Escape::LoneSurrogate => (6, b'?'),
            },
            (_, b'"') => {
                in_string = !in_string;
                at += 1;
                continue;
            }
            (false, b'/') => match comment(rest) {
                Some(len) => (len, b' '),
                None => break,
            },
            _ => {
                at += 1;
                continue;
            }
        };
        let out = out.get_or_insert_with(|| Vec::with_capacity(text.len()));
        out.extend_from_slice(text.get(copied..at).unwrap_or_default());
        out.push(replacement);
        at += skip;
        copied = at;
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.extend_from_slice(text.get(copied..).unwrap_or_default());
            Cow::Owned(out)
        }
    }
}

/// Length of the comment at the start of `text`; `None`: it is none, or does not end.
fn comment(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"//") {
        return Some(text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len()));
    }
    let body = text.strip_prefix(b"/*")?;
    body.windows(2).position(|pair| pair == b"*/").map(|end| end + 4)
}

enum Escape {
    Keep(usize),
    LoneSurrogate,
}

/// What the escape at the start of `text` is.
fn escape(text: &[u8]) -> Escape {
    match unicode_escape(text) {
        Some(0xd800..=0xdbff) => match text.get(6..).and_then(unicode_escape) {
            Some(0xdc00..=0xdfff) => Escape::Keep(12),
            _ => Escape::LoneSurrogate,
        },
        Some(0xdc00..=0xdfff) => Escape::LoneSurrogate,
        _ => Escape::Keep(2),
    }
}

fn unicode_escape(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// C strings end at the first NUL, which a text may hold as `\u0000`.
fn until_nul(text: &str) -> &str {
    text.find('\0').and_then(|end| text.get(..end)).unwrap_or(text)
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        source.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Self::Value, E> {
        Ok(Value::Number(Number::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Self::Value, E> {
        Ok(Value::Number(u64::try_from(value).map_or(Number::Negative(value), Number::Unsigned)))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Self::Value, E> {
        Ok(Value::Number(Number::Float(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> std::result::Result<Self::Value, E> {
        // Without escapes there is no NUL.
        Ok(Value::String(Cow::Borrowed(value)))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> std::result::Result<Self::Value, E> {
        Ok(Value::String(Cow::Owned(until_nul(value).to_owned())))
    }

    fn visit_bytes<E: serde::de::Error>(self, value: &[u8]) -> std::result::Result<Self::Value, E> {
        let text = std::str::from_utf8(value).map_err(E::custom)?;
        self.visit_str(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> std::result::Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = source.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> std::result::Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Key(key), value)) = source.next_entry::<Key<'de>, Value<'de>>()? {
            members.push((key, value));
        }
        Ok(Value::Object(members))
    }
}

/// Name of a member.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        source.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> std::result::Result<Self::Value, E> {
        Ok(Key(Cow::Borrowed(value)))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> std::result::Result<Self::Value, E> {
        Ok(Key(Cow::Owned(until_nul(value).to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_skipped_outside_strings() {
        let text = br#"// one
{ /* two " */ "a" /**/ : "x // y /* z */", // three
  "b": /* 1 * 2 */ 1 } // end"#;
        let value = parse(text).unwrap();
        assert_eq!(value.str("a"), Some("x // y /* z */"));
        assert_eq!(value.int64("b").unwrap(), 1);
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        let bad: &[&[u8]] = &[
            b"",
            b" \n",
            b"\0{}",
            b"{",
            b"{} x",
            b"{}{}",
            b"{\"a\":1,}",
            b"[1,]",
            b"{} /* no end",
            b"{} / x",
            b"\"\xff\"",
            b"{\"\xff\":1}",
            b"\"\x01\"",
            b"\"\\x\"",
            b"\"\\u12g4\"",
            b"01",
            b"'a'",
            b"nul",
        ];
        for text in bad {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn content_ends_at_a_nul() {
        assert_eq!(parse(b"{}\0garbage").unwrap(), Value::Object(vec![]));
        let value = parse(br#"{"a":"x\u0000y","k\u0000l":"v"}"#).unwrap();
        assert_eq!(value.str("a"), Some("x"));
        assert_eq!(value.str("k"), Some("v"));
    }

    #[test]
    fn surrogates_pair_up_or_become_a_question_mark() {
        let table = [
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""a\ud83dz""#, "a?z"),
            (r#""\ude00""#, "?"),
            (r#""\ud83d\ud83d\ude00""#, "?\u{1f600}"),
            (r#""\\ud83d""#, "\\ud83d"),
            (r#""\u00e4\/\n""#, "ä/\n"),
        ];
        for (text, wanted) in table {
            assert_eq!(parse(text.as_bytes()).unwrap().as_str(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        let text = "[".repeat(1_000_000);
        assert_eq!(parse(text.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData);
        let fine = format!("{}{}", "[".repeat(127), "]".repeat(127));
        assert!(parse(fine.as_bytes()).is_ok());
    }

    #[test]
    fn the_size_limit_is_that_of_the_reference() {
        let text = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
        assert!(parse(text(MAX_TEXT - 1).as_bytes()).is_ok());
        assert_eq!(parse(text(MAX_TEXT).as_bytes()).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let mut cut = text(100).into_bytes();
        cut.resize(MAX_TEXT + 5, 0);
        assert!(parse(&cut).is_ok(), "what follows a NUL does not count");
    }
}
