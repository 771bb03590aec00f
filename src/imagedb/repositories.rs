// SPDX-License-Identifier: MulanPSL-2.0
//! `repositories.json`: which image a name means.
//!
//! ```text
//! {"Repositories":{"<repository>":{"<repository>:<tag>":"sha256:<hex>","<repository>@sha256:<hex>":"sha256:<hex>"}}}
//! ```
//!
//! Names are familiar ones, keys are sorted, there is no white space; `Repositories` may have any case, `null` is nothing,
//! as for Go. A daemon does not start when it cannot read this file; here it is put aside and a new one begun, with all
//! entries that can be read. Texts that are no names or images are kept as they are. One that the disk does not give now
//! stays where it is, and takes no changes. Source: the reference store of Docker.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use parking_lot::{Mutex, RwLock};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::layer::Problem;
use crate::persist::{Durability, Ownership, StateDir, replace_file, step};
use crate::sys::fs::{Dir, FileKind};

use super::familiar::Familiar;
use super::shape::{as_text, means};

const FILE: &str = "repositories.json";
const FILE_MODE: u32 = 0o600;

/// Most bytes of the file: some hundred thousand names. Tests do with less.
pub(super) const LIMIT: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// Most members of all objects of the file together: more than names of images can be within [`LIMIT`].
pub(super) const MOST_MEMBERS: usize = if cfg!(test) { 1 << 14 } else { 1 << 20 };

/// A name and its image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Association {
    /// `repository:tag` or `repository@digest`.
    pub name: String,
    /// Id of the image, which need not be there.
    pub image: Digest,
}

type Map = BTreeMap<String, BTreeMap<String, String>>;

/// Where a file goes before it is put aside without being taken away.
const COPY: &str = "repositories.json.unread";

/// Most entries that a problem names.
const MOST_TOLD: usize = 10;

/// What is in the file.
#[derive(Debug, Default)]
struct Names {
    names: Map,
    /// Entries that Go would not take.
    odd: Vec<String>,
}

/// A member of the file, as far as it is looked at.
enum Value {
    Text(String),
    Pairs(Vec<(String, Value)>),
    Null,
    Other,
}

/// Reads a value; counts the members of objects, of which `None` are left when there were too many.
struct Look<'a> {
    left: &'a Cell<Option<usize>>,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        while source.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = source.next_key::<String>()? {
            self.left.set(self.left.get().and_then(|left| left.checked_sub(1)));
            if self.left.get().is_none() {
                return Err(A::Error::custom(format!("there are more than {MOST_MEMBERS} members")));
            }
            pairs.push((name, source.next_value_seed(Look { left: self.left })?));
        }
        Ok(Value::Pairs(pairs))
    }
}

/// `Corrupt` or, with too many members, `LimitExceeded`.
fn look(text: &str) -> Result<Value> {
    let left = Cell::new(Some(MOST_MEMBERS));
    let mut source = serde_json::Deserializer::from_str(text);
    let value = Look { left: &left }.deserialize(&mut source);
    value.and_then(|value| source.end().map(|()| value)).map_err(|error| {
        let kind = if left.get().is_some() { ErrorKind::Corrupt } else { ErrorKind::LimitExceeded };
        Error::with_source(kind, format!("parse {FILE}"), error)
    })
}

/// The same text with 0 for each number: the parser takes none that no `f64` can be.
fn without_numbers(text: &str) -> String {
    let is_part = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
    let mut changed = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_text = false;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match first {
            '"' => in_text = !in_text,
            '\\' if in_text => length += rest.chars().nth(1).map_or(0, char::len_utf8),
            '-' | '0'..='9' if !in_text => length = rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            _ => {}
        }
        let (part, behind) = rest.split_at(length);
        let is_number = !in_text && (first == '-' || first.is_ascii_digit());
        if is_number && serde_json::from_str::<IgnoredAny>(part).is_ok() {
            changed.push('0');
            changed.extend(std::iter::repeat_n(' ', length - 1));
        } else {
            changed.push_str(part);
        }
        rest = behind;
    }
    changed
}

impl Names {
    /// As Go decodes it, except that what Go would not take is told. No JSON, or no object: an error.
    fn parse(text: &[u8]) -> Result<Names> {
        let no_object = || Error::corrupt(format!("parse {FILE}: it is no object"));
        let text = as_text(text);
        let mut found = Names::default();
        let value = match look(&text) {
            Err(error) if error.kind() == ErrorKind::Corrupt => look(&without_numbers(&text)).or(Err(error)),
            value => value,
        };
        match value? {
            Value::Null => {}
            Value::Text(_) | Value::Other => return Err(no_object()),
            Value::Pairs(members) => {
                for (name, value) in members.into_iter().filter(|(name, _)| means(name, "repositories")) {
                    match value {
                        Value::Null => found.names.clear(),
                        Value::Pairs(repositories) => {
                            repositories.into_iter().for_each(|(name, value)| found.add(&name, value));
                        }
                        Value::Text(_) | Value::Other => {
                            return Err(no_object().context(format!("member {name:?}")));
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds a repository. The later of two counts.
    fn add(&mut self, repository: &str, value: Value) {
        self.names.remove(repository);
        let pairs = match value {
            Value::Null => return,
            Value::Pairs(pairs) => pairs,
            Value::Text(_) | Value::Other => return self.odd.push(repository.to_owned()),
        };
        let mut names = BTreeMap::new();
        for (name, value) in pairs {
            match value {
                Value::Null => {}
                Value::Text(image) => drop(names.insert(name, image)),
                Value::Pairs(_) | Value::Other => self.odd.push(name),
            }
        }
        if !names.is_empty() {
            self.names.insert(repository.to_owned(), names);
        }
    }

    /// The entries that are not taken, for people.
    fn oddities(&self) -> String {
        let told = self.odd.iter().take(MOST_TOLD).map(|name| {
            let part: String = name.chars().take(100).collect();
            format!("{part:?}")
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let more = self.odd.len().saturating_sub(MOST_TOLD);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("entries that cannot be read were left out: {told}{more}")
    }
}

/// The names.
#[derive(Debug)]
pub(super) struct Repositories {
    root: Dir,
    durability: Durability,
    /// Held by who writes the file; why it must not be written any more.
    change: Mutex<Option<String>>,
    names: RwLock<Map>,
}

impl Repositories {
    /// Reads the names; makes the file if there is none and it may.
    pub(super) fn open(
        root: &Dir,
        state: &StateDir,
        durability: Durability,
        problems: &mut Vec<Problem>,
    ) -> Result<Repositories> {
        let mut names = Repositories {
            root: root.try_clone()?,
            durability,
            change: Mutex::new(None),
            names: RwLock::default(),
        };
        let writable = state.ownership() != Ownership::ReadOnly;
        let problem =
            |reason: String, quarantined: bool| Problem { subject: FILE.to_owned(), reason, quarantined };
        match step("read names").and_then(|()| names.read()) {
            Ok(read) => {
                if !read.odd.is_empty() {
                    let reason = read.oddities();
                    let aside = if writable { names.put_a_copy_aside(state, &reason) } else { Ok(()) };
                    problems.push(problem(reason, writable && aside.is_ok()));
                    if writable {
                        let written = aside.and_then(|()| names.write(&read.names));
                        names.latch_unless(written, problems);
                    }
                }
                names.names = RwLock::new(read.names);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !writable => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let written = names.write(&Map::new());
                names.latch_unless(written, problems);
            }
            Err(error) => {
                let reason = format!("it cannot be read, there are no names: {}", error.report());
                if writable && names.is_useless(&error) {
                    let aside = state.quarantine(root, FILE, &reason);
                    problems.push(problem(reason, aside.is_ok()));
                    let written = aside.and_then(|_| names.write(&Map::new()));
                    names.latch_unless(written, problems);
                } else {
                    // What is in it must not be lost because the disk, or this process, has a bad moment.
                    names.change = Mutex::new(Some(error.report()));
                    problems.push(problem(reason, false));
                }
            }
        }
        Ok(names)
    }

    /// The images can be had without their names: a file that could not be mended takes no changes.
    fn latch_unless(&mut self, mended: Result<()>, problems: &mut Vec<Problem>) {
        if let Err(error) = mended {
            let reason = format!("names take no changes: {}", error.report());
            problems.push(Problem { subject: FILE.to_owned(), reason, quarantined: false });
            self.change = Mutex::new(Some(error.report()));
        }
    }

    fn read(&self) -> Result<Names> {
        Names::parse(&self.root.read(FILE, LIMIT)?)
    }

    /// Whether the file would not be read another time, either.
    fn is_useless(&self, error: &Error) -> bool {
        let is_file =
            || self.root.stat(FILE).is_ok_and(|stat| stat.is_none_or(|stat| stat.kind == FileKind::File));
        error.kind() == ErrorKind::Corrupt || !is_file()
    }

    /// At no instant the names are without their file.
    fn put_a_copy_aside(&self, state: &StateDir, reason: &str) -> Result<()> {
        let text = self.root.read(FILE, LIMIT)?;
        replace_file(&self.root, COPY, &text, FILE_MODE, self.durability)?;
        state.quarantine(&self.root, COPY, reason).map(drop)
    }

    fn write(&self, names: &Map) -> Result<()> {
        replace_file(&self.root, FILE, &text_of(names)?, FILE_MODE, self.durability)
    }

    /// Changes the names: the file first, then memory.
    fn change(&self, edit: impl FnOnce(&mut Map) -> Result<()>) -> Result<()> {
        let mut latched = self.change.lock();
        if let Some(why) = &*latched {
            let message = format!("names take no changes until the store is opened again: {why}");
            return Err(Error::new(ErrorKind::Latched, message));
        }
        let mut names = self.names.read().clone();
        edit(&mut names)?;
        if names == *self.names.read() {
            return Ok(());
        }
        let text = text_of(&names)?;
        let written = replace_file(&self.root, FILE, &text, FILE_MODE, self.durability);
        if written.is_ok() {
            *self.names.write() = names;
        } else {
            // The old ones or the new ones: what the disk says counts.
            match self.read() {
                Ok(read) => *self.names.write() = read.names,
                Err(error) => *latched = Some(error.report()),
            }
        }
        written
    }

    pub(super) fn add(&self, name: &str, id: &Digest, force: bool) -> Result<()> {
        let name = Familiar::parse(name)?;
        if name.repository == "sha256" {
            return Err(Error::invalid("refusing to create an ambiguous tag using digest algorithm as name"));
        }
        let key = name.key();
        self.change(|names| {
            let held = names.get(&name.repository).and_then(|names| names.get(&key));
            match held {
                Some(other) if *other == id.to_string() => return Ok(()),
                Some(other) if name.digest.is_some() => {
                    let message = format!("cannot overwrite digest {key}: it is set to image {other}");
                    return Err(Error::new(ErrorKind::AlreadyExists, message));
                }
                Some(other) if !force => {
                    let message = format!("conflict: tag {key} is already set to image {other}");
                    return Err(Error::new(ErrorKind::AlreadyExists, message));
                }
                _ => {}
            }
            names.entry(name.repository.clone()).or_default().insert(key.clone(), id.to_string());
            Ok(())
        })
    }

    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let name = Familiar::parse(name)?;
        self.change(|names| {
            let repository = names.get_mut(&name.repository);
            if repository.and_then(|repository| repository.remove(&name.key())).is_none() {
                return Err(Error::not_found(format!("reference does not exist: {}", name.key())));
            }
            names.retain(|repository, names| *repository != name.repository || !names.is_empty());
            Ok(())
        })
    }

    pub(super) fn get(&self, name: &str) -> Result<Digest> {
        let name = Familiar::parse(name)?;
        let names = self.names.read();
        let image = names.get(&name.repository).and_then(|names| names.get(&name.key()));
        let image =
            image.ok_or_else(|| Error::not_found(format!("reference does not exist: {}", name.key())))?;
        Digest::parse(image)
            .map_err(|error| error.with_kind(ErrorKind::Corrupt))
            .during(|| format!("image of {}", name.key()))
    }

    pub(super) fn of_image(&self, id: &Digest) -> Vec<String> {
        let id = id.to_string();
        let names = self.names.read();
        let all = names.values().flatten();
        let mut found: Vec<String> =
            all.filter(|(_, image)| **image == id).map(|(name, _)| name.clone()).collect();
        found.sort_unstable();
        found
    }

    pub(super) fn in_repository(&self, repository: &str) -> Result<Vec<Association>> {
        let repository = Familiar::parse(repository)?.repository;
        Ok(self.names.read().get(&repository).map(associations).unwrap_or_default())
    }

    pub(super) fn all(&self) -> Vec<Association> {
        let mut all: Vec<_> = self.names.read().values().flat_map(associations).collect();
        all.sort_unstable();
        all
    }
}

/// What the next start will read: too much for it is `LimitExceeded`.
fn text_of(names: &Map) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(&serde_json::json!({ "Repositories": names }))
        .map_err(|error| Error::with_source(ErrorKind::InvalidArgument, format!("write {FILE}"), error))?;
    let members = names.values().fold(1, |members, names| members + 1 + names.len());
    if u64::try_from(text.len()).map_or(true, |length| length > LIMIT) || members > MOST_MEMBERS {
        let message = format!("{FILE} would have more than {LIMIT} bytes or {MOST_MEMBERS} members");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(text)
}

fn associations(names: &BTreeMap<String, String>) -> Vec<Association> {
    let known = |(name, image): (&String, &String)| {
        Some(Association { name: name.clone(), image: Digest::parse(image).ok()? })
    };
    names.iter().filter_map(known).collect()
}
