// SPDX-License-Identifier: MulanPSL-2.0
//! JSON read as Go reads it into a struct: pure.
//!
//! Names of members are matched without regard to case, of members given twice the later one wins (objects and maps are
//! merged), `null` leaves a text, flag or number as it is and empties everything else, a value of another type is an
//! error, unknown members are skipped. Different on purpose: nesting is limited to 128 levels, and text has to be
//! Unicode.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

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
    let mut source = serde_json::Deserializer::from_slice(text);
    let mut node = Node::Absent;
    Element { members, into: &mut node }.deserialize(&mut source)?;
    source.end().map(|()| node)
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
fn means(name: &str, member: &str) -> bool {
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
                    texts.push(text.unwrap_or_default().into_owned());
                }
                *self.into = Node::Texts(texts);
            }
            Shape::Objects(members) => {
                let mut objects = Vec::new();
                loop {
                    let mut object = Node::Absent;
                    match source.next_element_seed(Element { members, into: &mut object })? {
                        Some(()) => objects.push(object),
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
            Shape::Object(members) => fill_object(source, members, self.into),
            Shape::TextMap => {
                let mut pairs = match std::mem::take(self.into) {
                    Node::Map(pairs) => pairs,
                    _ => Vec::new(),
                };
                while let Some((key, value)) = source.next_entry::<String, Option<String>>()? {
                    pairs.push((key, value.unwrap_or_default()));
                }
                *self.into = Node::Map(without_duplicates(pairs));
                Ok(())
            }
            Shape::Keys => {
                let mut keys = self.into.texts();
                while let Some(key) = source.next_key::<String>()? {
                    source.next_value_seed(Fill { shape: &EMPTY, into: &mut Node::Absent })?;
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
) -> Result<(), A::Error> {
    let mut nodes = into.members().unwrap_or_else(|| vec![Node::Absent; members.len()]);
    while let Some(Name(name)) = source.next_key::<Name<'de>>()? {
        let known = members.iter().zip(&mut nodes).find(|((member, _), _)| means(&name, member));
        match known {
            Some(((member, shape), into)) => source
                .next_value_seed(Fill { shape, into })
                .map_err(|error| A::Error::custom(format!("member {member:?}: {error}")))?,
            None => {
                source.next_value::<Skip>()?;
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
        fill_object(source, self.members, self.into)
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

/// Any value, looked at only as far as it has to be well-formed. `IgnoredAny` would know no limit of nesting.
struct Skip;

impl<'de> serde::Deserialize<'de> for Skip {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Skip)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = Skip;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_str<E>(self, _: &str) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Skip, A::Error> {
        while source.next_element::<Skip>()?.is_some() {}
        Ok(Skip)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Skip, A::Error> {
        while source.next_key::<IgnoredAny>()?.is_some() {
            source.next_value::<Skip>()?;
        }
        Ok(Skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static MEMBERS: &[Member] = &[
        ("text", Shape::Text),
        ("time", Shape::Time),
        ("flag", Shape::Flag),
        ("number", Shape::Number),
        ("texts", Shape::Texts),
        ("either", Shape::TextOrTexts),
        ("map", Shape::TextMap),
        ("keys", Shape::Keys),
        ("object", Shape::Object(&[("a", Shape::Text), ("sk", Shape::Text)])),
        ("objects", Shape::Objects(&[("a", Shape::Text)])),
    ];

    fn member(text: &str, name: &str) -> Node {
        let mut node = read(text.as_bytes(), MEMBERS).unwrap_or_else(|error| panic!("{text}: {error}"));
        let at = MEMBERS.iter().position(|(known, _)| *known == name).unwrap();
        node.members().unwrap().swap_remove(at)
    }

    fn text(value: &str) -> Node {
        Node::Text(value.into())
    }

    fn texts(values: &[&str]) -> Node {
        Node::Texts(values.iter().map(|value| (*value).into()).collect())
    }

    #[test]
    fn names_are_matched_without_regard_to_case() {
        for name in ["text", "TEXT", "Text", "tEXt"] {
            assert_eq!(member(&format!(r#"{{"{name}":"x"}}"#), "text"), text("x"), "{name}");
        }
        let object = |a: Node, sk: Node| Node::Object(vec![a, sk]);
        assert_eq!(member(r#"{"object":{"\u017f\u212a":"x"}}"#, "object"), object(Node::Absent, text("x")));
        assert_eq!(member(r#"{"text ":"x","téxt":"y"}"#, "text"), Node::Absent);
    }

    #[test]
    fn the_later_of_duplicates_wins_and_objects_are_merged() {
        assert_eq!(member(r#"{"text":"1","TEXT":"2"}"#, "text"), text("2"));
        assert_eq!(member(r#"{"texts":["1"],"texts":["2","3"]}"#, "texts"), texts(&["2", "3"]));
        assert_eq!(
            member(r#"{"object":{"a":"1"},"object":{"sk":"2"}}"#, "object"),
            Node::Object(vec![text("1"), text("2")])
        );
        let map = member(r#"{"map":{"a":"1","b":"2","a":"3"},"map":{"c":"4","b":"5"}}"#, "map");
        let pairs = [("a", "3"), ("b", "5"), ("c", "4")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(map, Node::Map(pairs.to_vec()));
    }

    #[test]
    fn null_keeps_scalars_and_empties_the_rest() {
        assert_eq!(member(r#"{"text":"1","text":null}"#, "text"), text("1"));
        assert_eq!(member(r#"{"flag":true,"flag":null}"#, "flag"), Node::Flag(true));
        assert_eq!(member(r#"{"texts":["1"],"texts":null}"#, "texts"), Node::Absent);
        assert_eq!(member(r#"{"object":{"a":"1"},"object":null}"#, "object"), Node::Absent);
        assert_eq!(member(r#"{"texts":["1",null]}"#, "texts"), texts(&["1", ""]));
        let empty = Node::Object(vec![Node::Absent]);
        assert_eq!(member(r#"{"objects":[null,{}]}"#, "objects"), Node::Objects(vec![empty.clone(), empty]));
    }

    #[test]
    fn a_value_of_another_type_is_an_error_that_names_the_member() {
        for bad in [
            r#"{"text":5}"#,
            r#"{"text":["x"]}"#,
            r#"{"time":"yesterday"}"#,
            r#"{"time":""}"#,
            r#"{"flag":"true"}"#,
            r#"{"number":1.0}"#,
            r#"{"number":"1"}"#,
            r#"{"number":9223372036854775808}"#,
            r#"{"texts":"x"}"#,
            r#"{"texts":[1]}"#,
            r#"{"either":5}"#,
            r#"{"either":{}}"#,
            r#"{"map":[]}"#,
            r#"{"map":{"a":1}}"#,
            r#"{"keys":{"a":1}}"#,
            r#"{"object":[]}"#,
            r#"{"objects":{}}"#,
            r#"{"objects":["x"]}"#,
        ] {
            let error = read(bad.as_bytes(), MEMBERS).unwrap_err().to_string();
            let name = bad.split('"').nth(1).unwrap();
            assert!(error.contains(&format!("member {name:?}")), "{bad}: {error}");
        }
        assert_eq!(member(r#"{"either":"x"}"#, "either"), texts(&["x"]));
        assert_eq!(member(r#"{"keys":{"a":{},"b":null,"c":{"x":[1]}}}"#, "keys"), texts(&["a", "b", "c"]));
        assert_eq!(member(r#"{"number":-5}"#, "number"), Node::Number(-5));
    }

    #[test]
    fn what_is_skipped_has_to_be_well_formed_and_not_too_deep() {
        assert_eq!(member(r#"{"x":[{"a":1.5e3},[],null,true,"é"],"text":"y"}"#, "text"), text("y"));
        for bad in [
            &br#"{"x":[}"#[..],
            br#"{"x":"\ud800"}"#,
            b"{\"x\":\"\xff\"}",
            br#"{"x":1}x"#,
            b"{} {}",
            b"[]",
            b"",
        ] {
            assert!(read(bad, MEMBERS).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested =
                |levels: usize| format!(r#"{{"x":{}1{}}}"#, open.repeat(levels), close.repeat(levels));
            assert!(read(nested(126).as_bytes(), MEMBERS).is_ok());
            assert!(read(nested(128).as_bytes(), MEMBERS).is_err());
            assert!(read(nested(1_000_000).as_bytes(), MEMBERS).is_err());
        }
    }
}
