// SPDX-License-Identifier: MulanPSL-2.0
//! `repositories.json`: which image a name means.
//!
//! ```text
//! {"Repositories":{"<repository>":{"<repository>:<tag>":"sha256:<hex>","<repository>@sha256:<hex>":"sha256:<hex>"}}}
//! ```
//!
//! Names are familiar ones, keys are sorted, there is no white space. A daemon does not start when it cannot read this
//! file; here it is put aside and a new one begun. Entries that are not understood are kept as they are. Source: the
//! reference store of Docker.

use std::collections::BTreeMap;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::layer::Problem;
use crate::persist::{Durability, Ownership, StateDir, replace_file};
use crate::sys::fs::Dir;

use super::familiar::Familiar;

const FILE: &str = "repositories.json";
const FILE_MODE: u32 = 0o600;

/// Most bytes of the file: some hundred thousand names.
const LIMIT: u64 = 256 << 20;

/// A name and its image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Association {
    /// `repository:tag` or `repository@digest`.
    pub name: String,
    /// Id of the image, which need not be there.
    pub image: Digest,
}

type Map = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    #[serde(rename = "Repositories")]
    repositories: Option<Map>,
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
        match names.read() {
            Ok(read) => names.names = RwLock::new(read),
            Err(error) if error.kind() == ErrorKind::NotFound && !writable => {}
            Err(error) if error.kind() == ErrorKind::NotFound => names.write(&Map::new())?,
            Err(error) => {
                let reason = format!("it cannot be read, there are no names: {}", error.report());
                if writable {
                    state.quarantine(root, FILE, &reason)?;
                    names.write(&Map::new())?;
                }
                problems.push(Problem { subject: FILE.to_owned(), reason, quarantined: writable });
            }
        }
        Ok(names)
    }

    fn read(&self) -> Result<Map> {
        let text = self.root.read(FILE, LIMIT)?;
        let file: File = serde_json::from_slice(&text)
            .map_err(|error| Error::with_source(ErrorKind::Corrupt, format!("parse {FILE}"), error))?;
        Ok(file.repositories.unwrap_or_default())
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
                Ok(names) => *self.names.write() = names,
                Err(error) => *latched = Some(error.report()),
            }
        }
        written
    }

    pub(super) fn add(&self, name: &str, id: &Digest, force: bool) -> Result<()> {
        let name = Familiar::parse(name)?;
        if name.digest.is_none() && name.repository == "sha256" {
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
