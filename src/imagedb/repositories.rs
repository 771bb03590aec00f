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

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use parking_lot::{Mutex, RwLock};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::layer::Problem;
use crate::persist::{Durability, Ownership, StateDir, replace_file, step};
use crate::sys::fs::{Dir, FileKind};

use super::familiar::Familiar;
use super::shape::{as_text, means};

const FILE: &str = "repositories.json";
const FILE_MODE: u32 = 0o600;

/// Most bytes of the file: some hundred thousand names.
const LIMIT: u64 = 64 << 20;

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
enum Value<'a> {
    Text(String),
    Pairs(Vec<(Cow<'a, str>, Value<'a>)>),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Value<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
                while source.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = source.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Value::Pairs(pairs))
            }
        }
        source.deserialize_any(Look)
    }
}

impl Names {
    /// As Go decodes it, except that what Go would not take is told. No JSON, or no object: an error.
    fn parse(text: &[u8]) -> Result<Names> {
        let corrupt =
            |error: serde_json::Error| Error::with_source(ErrorKind::Corrupt, format!("parse {FILE}"), error);
        let no_object = || Error::corrupt(format!("parse {FILE}: it is no object"));
        let text = as_text(text);
        let mut found = Names::default();
        match serde_json::from_str(&text).map_err(corrupt)? {
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
    fn add(&mut self, repository: &str, value: Value<'_>) {
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
                Value::Text(image) => drop(names.insert(name.into_owned(), image)),
                Value::Pairs(_) | Value::Other => self.odd.push(name.into_owned()),
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
                    if writable {
                        names.put_a_copy_aside(state, &reason)?;
                        names.write(&read.names)?;
                    }
                    problems.push(problem(reason, writable));
                }
                names.names = RwLock::new(read.names);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !writable => {}
            Err(error) if error.kind() == ErrorKind::NotFound => names.write(&Map::new())?,
            Err(error) => {
                let reason = format!("it cannot be read, there are no names: {}", error.report());
                let useless = names.is_useless(&error);
                if writable && useless {
                    state.quarantine(root, FILE, &reason)?;
                    names.write(&Map::new())?;
                } else {
                    // What is in it must not be lost because the disk, or this process, has a bad moment.
                    names.change = Mutex::new(Some(error.report()));
                }
                problems.push(problem(reason, writable && useless));
            }
        }
        Ok(names)
    }

    fn read(&self) -> Result<Names> {
        Names::parse(&self.root.read(FILE, LIMIT)?)
    }

    /// Whether the file would not be read another time, either.
    fn is_useless(&self, error: &Error) -> bool {
        let is_file =
            || self.root.stat(FILE).is_ok_and(|stat| stat.is_none_or(|stat| stat.kind == FileKind::File));
        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::LimitExceeded) || !is_file()
    }

    /// At no instant the names are without their file.
    fn put_a_copy_aside(&self, state: &StateDir, reason: &str) -> Result<()> {
        let text = self.root.read(FILE, LIMIT)?;
        replace_file(&self.root, COPY, &text, FILE_MODE, self.durability)?;
        state.quarantine(&self.root, COPY, reason).map(drop)
    }

    fn write(&self, names: &Map) -> Result<()> {
        let text = serde_json::to_vec(&serde_json::json!({ "Repositories": names })).map_err(|error| {
            Error::with_source(ErrorKind::InvalidArgument, format!("write {FILE}"), error)
        })?;
        replace_file(&self.root, FILE, &text, FILE_MODE, self.durability)
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
        let written = self.write(&names);
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

fn associations(names: &BTreeMap<String, String>) -> Vec<Association> {
    let known = |(name, image): (&String, &String)| {
        Some(Association { name: name.clone(), image: Digest::parse(image).ok()? })
    };
    names.iter().filter_map(known).collect()
}
