// SPDX-License-Identifier: MulanPSL-2.0
//! A small filter language: the part of containerd's that images need, and prefixes.
//!
//! ```text
//! filter     condition {"," condition}          all of them
//! condition  field                              it is there, and not empty
//!            field "==" value
//!            field "!=" value
//!            field "^=" value                   begins with it; containerd has regular expressions here
//! field      "name" | "target.digest" | "digest" | "target.mediatype" | "labels." key | "annotations." key
//! key        text without , = ! ~ ^ " | quoted
//! value      text without , | quoted
//! quoted     '"' text with \" and \\ '"'
//! ```
//!
//! Several filters choose what any of them chooses.

use super::{Labels, NamespacedImage};
use crate::error::{During, Error, Result};

/// Which images a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(Vec<Vec<Condition>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    field: Field,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Name,
    Digest,
    MediaType,
    Label(String),
    Annotation(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Present,
    Is(String),
    IsNot(String),
    BeginsWith(String),
}

impl Filters {
    /// Parses filters; without any, everything is chosen. `InvalidArgument` says where one is wrong.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Filters> {
        let parse = |text: &str| Parser { text, at: 0 }.filter().during(|| format!("filter {text:?}"));
        filters.iter().map(|text| parse(text.as_ref())).collect::<Result<_>>().map(Filters)
    }

    /// Whether an image is chosen.
    pub fn choose(&self, image: &NamespacedImage) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.iter().all(|condition| condition.holds(image)))
    }
}

impl Condition {
    fn holds(&self, image: &NamespacedImage) -> bool {
        let value = match &self.field {
            Field::Name => Some(&image.name),
            Field::Digest => Some(&image.target.digest),
            Field::MediaType => Some(&image.target.media_type),
            Field::Label(key) => image.labels.get(key),
            Field::Annotation(key) => image.annotations.get(key),
        };
        // As in the original: what is not there is not equal to anything, and begins with nothing.
        match (&self.test, value) {
            (Test::Present, value) => value.is_some_and(|value| !value.is_empty()),
            (Test::Is(wanted), value) => value == Some(wanted),
            (Test::IsNot(unwanted), value) => value != Some(unwanted),
            (Test::BeginsWith(prefix), value) => value.is_some_and(|value| value.starts_with(prefix)),
        }
    }
}

/// Where a field that is not quoted ends.
const ENDS: [char; 6] = [',', '=', '!', '~', '^', '"'];

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn wrong(&self, expected: &str) -> Error {
        Error::invalid(format!("at byte {}: {expected}", self.at))
    }

    fn filter(mut self) -> Result<Vec<Condition>> {
        let mut conditions = vec![self.condition()?];
        while self.take(",") {
            conditions.push(self.condition()?);
        }
        if self.rest().is_empty() {
            Ok(conditions)
        } else {
            Err(self.wrong("a comma or the end was expected"))
        }
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn condition(&mut self) -> Result<Condition> {
        let field = self.field()?;
        let test = if self.take("==") {
            Test::Is(self.value()?)
        } else if self.take("!=") {
            Test::IsNot(self.value()?)
        } else if self.take("^=") {
            Test::BeginsWith(self.value()?)
        } else if self.rest().starts_with("~=") {
            return Err(self.wrong("there are no regular expressions; ^= compares how a value begins"));
        } else {
            Test::Present
        };
        Ok(Condition { field, test })
    }

    fn field(&mut self) -> Result<Field> {
        if self.take("labels.") {
            return self.key().map(Field::Label);
        }
        if self.take("annotations.") {
            return self.key().map(Field::Annotation);
        }
        let at = self.at;
        let name = self.until(&ENDS);
        match name.as_str() {
            "name" => Ok(Field::Name),
            "digest" | "target.digest" => Ok(Field::Digest),
            "target.mediatype" => Ok(Field::MediaType),
            _ => {
                self.at = at;
                Err(self.wrong("name, digest, target.mediatype, labels.KEY or annotations.KEY was expected"))
            }
        }
    }

    fn key(&mut self) -> Result<String> {
        let key = match self.quoted()? {
            Some(key) => key,
            None => self.until(&ENDS),
        };
        if key.is_empty() { Err(self.wrong("a key was expected")) } else { Ok(key) }
    }

    fn value(&mut self) -> Result<String> {
        match self.quoted()? {
            Some(value) => Ok(value),
            None => Ok(self.until(&[','])),
        }
    }

    fn until(&mut self, ends: &[char]) -> String {
        let rest = self.rest();
        let part = rest.split(ends).next().unwrap_or_default().to_owned();
        self.at += part.len();
        part
    }

    /// A quoted text, if one begins here.
    fn quoted(&mut self) -> Result<Option<String>> {
        if !self.take("\"") {
            return Ok(None);
        }
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += at + 1;
                    return Ok(Some(text));
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => break,
                },
                other => text.push(other),
            }
        }
        Err(self.wrong("a quoted text does not end, or has another escape than \\\" and \\\\"))
    }
}

impl NamespacedImage {
    /// The same image with these labels.
    #[must_use]
    pub fn with_labels<K: Into<String>, V: Into<String>>(
        mut self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> NamespacedImage {
        self.labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<Labels>();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Target;

    fn image() -> NamespacedImage {
        let mut image = NamespacedImage {
            name: "docker.io/library/busybox:1".into(),
            target: Target { media_type: "m/x".into(), digest: "sha256:abc".into(), size: 1 },
            ..NamespacedImage::default()
        }
        .with_labels([("a", "1"), ("io.x/y=z", "say \"hi\", \\"), ("empty", "")]);
        image.annotations.insert("k".into(), "v".into());
        image
    }

    #[test]
    fn filters_choose_images() {
        let table: &[(&[&str], bool)] = &[
            (&[], true),
            (&["name"], true),
            (&["name==docker.io/library/busybox:1"], true),
            (&["name==busybox"], false),
            (&["name!=busybox"], true),
            (&["name!=docker.io/library/busybox:1"], false),
            (&["name^=docker.io/"], true),
            (&["name^="], true),
            (&["name^=quay.io/"], false),
            (&["digest==sha256:abc"], true),
            (&["target.digest^=sha256:ab"], true),
            (&["target.digest==sha256:abd"], false),
            (&["target.mediatype==m/x"], true),
            (&["labels.a"], true),
            (&["labels.a==1"], true),
            (&["labels.a==2"], false),
            (&["labels.b"], false),
            (&["labels.b!=1"], true),
            (&["labels.b=="], false),
            (&["labels.b^="], false),
            (&["labels.empty"], false),
            (&["labels.empty=="], true),
            (&["labels.\"io.x/y=z\"==\"say \\\"hi\\\", \\\\\""], true),
            (&["annotations.k==v"], true),
            (&["annotations.k==w"], false),
            (&["name^=docker.io,labels.a==1"], true),
            (&["name^=docker.io,labels.a==2"], false),
            (&["labels.a==2", "annotations.k"], true),
            (&["labels.a==2", "labels.a==3"], false),
        ];
        for (filters, chosen) in table {
            assert_eq!(Filters::parse(filters).unwrap().choose(&image()), *chosen, "{filters:?}");
        }
    }

    #[test]
    fn wrong_filters_are_told_where() {
        let table = [
            ("", "at byte 0: name, digest,"),
            ("nam", "at byte 0: name, digest,"),
            ("size==1", "at byte 0: name, digest,"),
            ("name,", "at byte 5: name, digest,"),
            ("name=x", "at byte 4: a comma or the end"),
            ("name~=x.*", "at byte 4: there are no regular expressions"),
            ("name==\"x", "at byte 7: a quoted text does not end"),
            ("name==\"x\\n\"", "at byte 7: a quoted text does not end"),
            ("name==\"x\"y", "at byte 9: a comma or the end"),
            ("labels.", "at byte 7: a key was expected"),
            ("labels.\"\"", "at byte 9: a key was expected"),
            ("name é", "at byte 0: name, digest,"),
        ];
        for (filter, expected) in table {
            let error = Filters::parse(&[filter]).unwrap_err().report();
            assert!(error.starts_with(&format!("filter {filter:?}: {expected}")), "{error}");
        }
    }
}
