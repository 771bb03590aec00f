// SPDX-License-Identifier: MulanPSL-2.0
//! JSON read as Go reads it into a struct: pure.
//!
//! Names of members are matched without regard to case, of members given twice the later one wins (objects and maps are
//! merged), `null` leaves a text, flag or number as it is and empties everything else, a value of another type is an
//! error, unknown members are skipped, what is no Unicode becomes U+FFFD. Different on purpose: nesting is limited to 128
//! levels, and there is a limit to how many elements arrays and maps have, which take many times their length in memory.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most levels of nesting.
const DEEPEST: usize = 127;

/// Most elements of all arrays and maps that are wanted together. An image has some hundreds.
pub(super) const MOST_ELEMENTS: usize = 1 << 16;

/// What a member is to be.
#[derive(Debug)]
pub(super) enum Shape {
    /// Text.
    Text,
    /// RFC 3339.
    Time,
    /// `true` or `false`.
    Flag,
    /// A whole number that fits an `i64`.
    Number,
    /// An array of texts.
    Texts,
    /// An array of texts, or one text, which is an array of one.
    TextOrTexts,
    /// An object whose values are texts.
    TextMap,
    /// An object whose values are objects: only the names count.
    Keys,
    /// An object.
    Object(&'static [Member]),
    /// An array of objects.
    Objects(&'static [Member]),
}

/// A member of an object: its name in lower case, and what it is to be.
pub(super) type Member = (&'static str, Shape);

/// What was read.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Node {
    /// Nothing, or `null`.
    #[default]
    Absent,
    /// Text or time.
    Text(String),
    /// A flag.
    Flag(bool),
    /// A number.
    Number(i64),
    /// Texts, or the names of [`Shape::Keys`].
    Texts(Vec<String>),
    /// Pairs, without duplicates, in the order of their first appearance.
    Map(Vec<(String, String)>),
    /// One node for each member of the shape, in its order.
    Object(Vec<Node>),
    /// The elements of an array of objects.
    Objects(Vec<Node>),
}

/// Reads a whole text as an object of these members; `null` is one without any.
pub(super) fn read(text: &[u8], members: &'static [Member]) -> serde_json::Result<Node> {
    let text = as_text(text);
    if is_too_deep(text.as_bytes()) {
        return Err(serde_json::Error::custom(format!("nested deeper than {DEEPEST} levels")));
    }
    let mut source = serde_json::Deserializer::from_str(&text);
    let mut node = Node::Absent;
    let left = Cell::new(MOST_ELEMENTS);
    Element { members, into: &mut node, left: &left }.deserialize(&mut source)?;
    source.end().map(|()| node)
}

/// JSON as Go takes it: bytes that are no UTF-8, and halves of surrogate pairs, are U+FFFD.
pub(super) fn as_text(text: &[u8]) -> Cow<'_, str> {
    /// Of an escape, `\\uxxxx`.
    const LENGTH: usize = 6;
    let text = String::from_utf8_lossy(text);
    let code = |at: usize| -> Option<u32> {
        let digits = text.get(at..at.checked_add(LENGTH)?)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut lone = Vec::new();
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        at += match code(at) {
            Some(0xd800..0xdc00) if matches!(code(at + LENGTH), Some(0xdc00..0xe000)) => 2 * LENGTH,
            Some(0xd800..0xe000) => {
                lone.push(at);
                LENGTH
            }
            // Also what is no escape: outside of ASCII it has no end behind the next byte.
            _ => 1 + text.get(at + 1..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8),
        };
    }
    if lone.is_empty() {
        return text;
    }
    let mut mended = text.into_owned();
    for at in lone {
        mended.replace_range(at..at + LENGTH, "\\ufffd");
    }
    Cow::Owned(mended)
}

/// Whether there are more levels of nesting than anybody needs. What is skipped is not counted by the parser.
fn is_too_deep(text: &[u8]) -> bool {
    let opening = |byte: &u8| matches!(byte, b'[' | b'{');
    // Almost always enough.
    if text.iter().filter(|byte| opening(byte)).count() <= DEEPEST {
        return false;
    }
    let mut depth = 0usize;
    let mut bytes = text.iter();
    let mut in_text = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_text = !in_text,
            b'\\' if in_text => drop(bytes.next()),
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

impl Node {
    /// Takes the text out.
    pub(super) fn text(&mut self) -> Option<String> {
        match std::mem::take(self) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a flag that is set.
    pub(super) fn flag(&self) -> bool {
        matches!(self, Node::Flag(true))
    }

    /// Takes the texts out.
    pub(super) fn texts(&mut self) -> Vec<String> {
        match std::mem::take(self) {
            Node::Texts(texts) => texts,
            _ => Vec::new(),
        }
    }

    /// Takes the pairs out.
    pub(super) fn map(&mut self) -> Vec<(String, String)> {
        match std::mem::take(self) {
            Node::Map(pairs) => pairs,
            _ => Vec::new(),
        }
    }

    /// Takes the members out; `None` when there is no object.
    pub(super) fn members(&mut self) -> Option<Vec<Node>> {
        match std::mem::take(self) {
            Node::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Takes the objects out.
    pub(super) fn objects(&mut self) -> Vec<Node> {
        match std::mem::take(self) {
            Node::Objects(objects) => objects,
            _ => Vec::new(),
        }
    }
}

/// Whether a name in the text means a member. Go folds two letters outside of ASCII onto ASCII ones.
pub(super) fn means(name: &str, member: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(member);
    }
    let folded = name.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(member.chars())
}

/// Reads one value into a node.
struct Fill<'a> {
    shape: &'static Shape,
    into: &'a mut Node,
    left: &'a Cell<usize>,
}

/// Counts an element of an array or map.
fn count<E: serde::de::Error>(left: &Cell<usize>) -> Result<(), E> {
    count_all(left, 1)
}

/// Counts elements: those of a map that is taken up again once more, for each is looked at again.
fn count_all<E: serde::de::Error>(left: &Cell<usize>, elements: usize) -> Result<(), E> {
    let rest = left.get().checked_sub(elements);
    left.set(rest.ok_or_else(|| E::custom(format!("it has more than {MOST_ELEMENTS} elements")))?);
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shape {
            Shape::Text => "a text",
            Shape::Time => "a time",
            Shape::Flag => "a boolean",
            Shape::Number => "a whole number",
            Shape::Texts => "an array of texts",
            Shape::TextOrTexts => "a text or an array of texts",
            Shape::TextMap => "an object with texts",
            Shape::Keys => "an object with objects",
            Shape::Object(_) => "an object",
            Shape::Objects(_) => "an array of objects",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        match self.shape {
            Shape::Text | Shape::Time | Shape::Flag | Shape::Number => {}
            _ => *self.into = Node::Absent,
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.shape {
            Shape::Flag => *self.into = Node::Flag(value),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let unexpected = serde::de::Unexpected::Unsigned(value);
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => Err(E::invalid_type(unexpected, &self)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match self.shape {
            Shape::Number => *self.into = Node::Number(value),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        // "-0" is a whole number for Go.
        if value == 0.0 && value.is_sign_negative() {
            return self.visit_i64(0);
        }
        Err(E::invalid_type(serde::de::Unexpected::Float(value), &self))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        match self.shape {
            Shape::Text => *self.into = Node::Text(value.to_owned()),
            Shape::Time => {
                crate::time::Timestamp::parse_rfc3339(value).map_err(|error| E::custom(error.report()))?;
                *self.into = Node::Text(value.to_owned());
            }
            Shape::TextOrTexts => *self.into = Node::Texts(vec![value.to_owned()]),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str("…"), &self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<(), A::Error> {
        match self.shape {
            Shape::Texts | Shape::TextOrTexts => {
                let mut texts = Vec::new();
                while let Some(text) = source.next_element::<Option<Cow<'de, str>>>()? {
                    count(self.left)?;
                    texts.push(text.unwrap_or_default().into_owned());
                }
                *self.into = Node::Texts(texts);
            }
            Shape::Objects(members) => {
                let mut objects = Vec::new();
                loop {
                    let mut object = Node::Absent;
                    match source.next_element_seed(Element { members, into: &mut object, left: self.left })? {
                        Some(()) => {
                            count(self.left)?;
                            objects.push(object);
                        }
                        None => break,
                    }
                }
                *self.into = Node::Objects(objects);
            }
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<(), A::Error> {
        match self.shape {
            Shape::Object(members) => fill_object(source, members, self.into, self.left),
            Shape::TextMap => {
                let mut pairs = match std::mem::take(self.into) {
                    Node::Map(pairs) => pairs,
                    _ => Vec::new(),
                };
                count_all(self.left, pairs.len())?;
                while let Some((key, value)) = source.next_entry::<String, Option<String>>()? {
                    count(self.left)?;
                    pairs.push((key, value.unwrap_or_default()));
                }
                *self.into = Node::Map(without_duplicates(pairs));
                Ok(())
            }
            Shape::Keys => {
                let mut keys = self.into.texts();
                count_all(self.left, keys.len())?;
                while let Some(key) = source.next_key::<String>()? {
                    count(self.left)?;
                    source.next_value_seed(Fill {
                        shape: &EMPTY,
                        into: &mut Node::Absent,
                        left: self.left,
                    })?;
                    keys.push(key);
                }
                let pairs = without_duplicates(keys.into_iter().map(|key| (key, ())).collect());
                *self.into = Node::Texts(pairs.into_iter().map(|(key, ())| key).collect());
                Ok(())
            }
            _ => Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self)),
        }
    }
}

/// An object of which nothing is wanted.
static EMPTY: Shape = Shape::Object(&[]);

fn fill_object<'de, A: MapAccess<'de>>(
    mut source: A,
    members: &'static [Member],
    into: &mut Node,
    left: &Cell<usize>,
) -> Result<(), A::Error> {
    let mut nodes = into.members().unwrap_or_else(|| vec![Node::Absent; members.len()]);
    while let Some(Name(name)) = source.next_key::<Name<'de>>()? {
        let known = members.iter().zip(&mut nodes).find(|((member, _), _)| means(&name, member));
        match known {
            Some(((member, shape), into)) => source
                .next_value_seed(Fill { shape, into, left })
                .map_err(|error| A::Error::custom(format!("member {member:?}: {error}")))?,
            None => {
                source.next_value::<IgnoredAny>()?;
            }
        }
    }
    *into = Node::Object(nodes);
    Ok(())
}

/// The later value of a key, in the place of the first.
fn without_duplicates<T>(pairs: Vec<(String, T)>) -> Vec<(String, T)> {
    let mut places = std::collections::HashMap::with_capacity(pairs.len());
    let mut unique: Vec<(String, T)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        match places.get(&key).and_then(|place: &usize| unique.get_mut(*place)) {
            Some(pair) => pair.1 = value,
            None => {
                places.insert(key.clone(), unique.len());
                unique.push((key, value));
            }
        }
    }
    unique
}

/// An element of an array of objects: an object, or `null`, which is an object without members.
struct Element<'a> {
    members: &'static [Member],
    into: &'a mut Node,
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        *self.into = Node::Object(vec![Node::Absent; self.members.len()]);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, source: A) -> Result<(), A::Error> {
        fill_object(source, self.members, self.into, self.left)
    }
}

/// Name of a member.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(value.to_owned())))
            }
        }
        source.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
#[path = "tests/shape.rs"]
mod tests;
