// SPDX-License-Identifier: MulanPSL-2.0
//! Members to text.
//!
//! Four blanks of indentation, one element a line, one newline at the end. An empty map or array is written without
//! the blank after the colon (`"Labels":{}`), an empty object with known members as `{`, an empty line, `}`. Absent
//! strings, empty arrays, zeros and `false` are left out.

/// Writes an object as a whole text, with its newline.
pub fn to_text(fill: impl FnOnce(&mut ObjectWriter<'_>)) -> String {
    let mut out = String::new();
    write_object(&mut out, 1, fill);
    out.push('\n');
    out
}

/// Writes the members of one object in the order of the calls.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    out: &'a mut String,
    depth: usize,
    first: bool,
}

impl ObjectWriter<'_> {
    /// A string, unless it is absent; an empty one is written.
    pub fn string<T: AsRef<str>>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.key(key);
            self.blank();
            write_string(self.out, value.as_ref());
        }
    }

    /// An array of strings, unless it is empty.
    pub fn strings<T: AsRef<str>>(&mut self, key: &str, values: &[T]) {
        self.array(key, values, |out, _, value| write_string(out, value.as_ref()));
    }

    /// An array of objects, unless it is empty.
    pub fn objects<T>(&mut self, key: &str, values: &[T], fill: impl Fn(&mut ObjectWriter<'_>, &T)) {
        self.array(key, values, |out, depth, value| write_object(out, depth, |object| fill(object, value)));
    }

    /// An object with known members.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.key(key);
        self.blank();
        write_object(self.out, self.depth + 1, fill);
    }

    /// A number, unless it is zero.
    pub fn signed(&mut self, key: &str, value: impl Into<i64>) {
        let value = value.into();
        if value != 0 {
            self.raw(key, &value.to_string());
        }
    }

    /// A number, unless it is zero.
    pub fn unsigned(&mut self, key: &str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.raw(key, &value.to_string());
        }
    }

    /// A flag, unless it is false.
    pub fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.raw(key, "true");
        }
    }

    /// A map of strings, unless it is absent; an empty one is written.
    pub fn string_map<K: AsRef<str>, V: AsRef<str>>(&mut self, key: &str, map: Option<&[(K, V)]>) {
        self.map(key, map, |object, (name, value)| object.string(name.as_ref(), Some(value)));
    }

    /// A map of numbers, unless it is absent; an empty one is written, and so are zeros in it.
    pub fn int_map<K: AsRef<str>>(&mut self, key: &str, map: Option<&[(K, i64)]>) {
        self.map(key, map, |object, (name, value)| object.raw(name.as_ref(), &value.to_string()));
    }

    /// A map of empty objects with these keys, unless it is absent; an empty one is written.
    pub fn key_map<K: AsRef<str>>(&mut self, key: &str, keys: Option<&[K]>) {
        self.map(key, keys, |object, name| {
            object.key(name.as_ref());
            object.out.push_str("{}");
        });
    }

    fn map<T>(&mut self, key: &str, entries: Option<&[T]>, write: impl Fn(&mut ObjectWriter<'_>, &T)) {
        match entries {
            None => {}
            Some([]) => {
                self.key(key);
                self.out.push_str("{}");
            }
            Some(entries) => self.object(key, |object| entries.iter().for_each(|entry| write(object, entry))),
        }
    }

    fn array<T>(&mut self, key: &str, values: &[T], write: impl Fn(&mut String, usize, &T)) {
        if values.is_empty() {
            return;
        }
        self.key(key);
        self.blank();
        self.out.push('[');
        for (index, value) in values.iter().enumerate() {
            self.out.push_str(if index == 0 { "\n" } else { ",\n" });
            indent(self.out, self.depth + 1);
            write(self.out, self.depth + 2, value);
        }
        self.out.push('\n');
        indent(self.out, self.depth);
        self.out.push(']');
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.key(key);
        self.blank();
        self.out.push_str(value);
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.push_str(",\n");
        }
        self.first = false;
        indent(self.out, self.depth);
        write_string(self.out, key);
        self.out.push(':');
    }

    fn blank(&mut self) {
        self.out.push(' ');
    }
}

/// Writes an object whose members are indented by `depth`.
fn write_object(out: &mut String, depth: usize, fill: impl FnOnce(&mut ObjectWriter<'_>)) {
    out.push_str("{\n");
    fill(&mut ObjectWriter { out, depth, first: true });
    out.push('\n');
    indent(out, depth - 1);
    out.push('}');
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("    ");
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04X}", u32::from(character))),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_exact() {
        let text = to_text(|w| {
            w.string("id", Some("x"));
            w.string("absent", None::<&str>);
            w.string("empty", Some(""));
            w.strings("none", &[] as &[&str]);
            w.strings("two", &["a", "b"]);
            w.signed("zero", 0);
            w.signed("minus", -5);
            w.unsigned("size", u64::MAX);
            w.flag("no", false);
            w.flag("yes", true);
            w.string_map("Labels", Some(&[] as &[(&str, &str)]));
            w.string_map("m", Some(&[("k", "v"), ("k2", "")]));
            w.int_map("n", Some(&[("zero", 0), ("one", 1)]));
            w.key_map("ports", Some(&["80/tcp", "81/tcp"]));
            w.key_map("no-ports", None::<&[&str]>);
            w.object("config", |_| {});
            w.objects("history", &["a", ""], |w, by| {
                if !by.is_empty() {
                    w.string("created_by", Some(by));
                }
            });
        });
        let wanted = r#"{
    "id": "x",
    "empty": "",
    "two": [
        "a",
        "b"
    ],
    "minus": -5,
    "size": 18446744073709551615,
    "yes": true,
    "Labels":{},
    "m": {
        "k": "v",
        "k2": ""
    },
    "n": {
        "zero": 0,
        "one": 1
    },
    "ports": {
        "80/tcp":{},
        "81/tcp":{}
    },
    "config": {

    },
    "history": [
        {
            "created_by": "a"
        },
        {

        }
    ]
}
"#;
        assert_eq!(text, wanted);
        assert_eq!(to_text(|_| {}), "{\n\n}\n");
    }

    #[test]
    fn strings_are_escaped_as_the_reference_does() {
        let text = to_text(|w| w.string("k\"", Some("a/b\\\"\n\r\t\u{8}\u{c}\u{1f}\u{1}\u{7f}ä😀")));
        assert_eq!(text, "{\n    \"k\\\"\": \"a/b\\\\\\\"\\n\\r\\t\\b\\f\\u001F\\u0001\u{7f}ä😀\"\n}\n");
    }
}
