// SPDX-License-Identifier: MulanPSL-2.0
//! Opening a database file, and telling which schema it has.

use std::path::Path;
use std::sync::Arc;

use super::boltfile::{Access, BoltFile, Bucket, Options, Transaction};
use super::varint;
use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::Dir;

pub(super) const V1: &[u8] = b"v1";
pub(super) const VERSION: &[u8] = b"version";
pub(super) const IMAGES: &[u8] = b"images";

/// What a database file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Nothing yet.
    Empty,
    /// Names of images only: [`super::ImageFile`].
    Images,
    /// Namespaces, as containerd's metadata has today: [`super::NamespacedFile`]. Files from before versions have 0.
    Namespaced {
        /// Of the schema.
        version: i64,
    },
    /// Something else.
    Other,
}

impl Schema {
    fn of(root: &Bucket<'_>) -> Result<Schema> {
        let Some(v1) = root.bucket(V1)? else {
            let is_empty = root.items().next().transpose()?.is_none();
            return Ok(if is_empty { Schema::Empty } else { Schema::Other });
        };
        if let Some(version) = v1.get(VERSION)? {
            let version =
                varint::decode(&version).ok_or_else(|| Error::corrupt("its version is no number"))?;
            return Ok(Schema::Namespaced { version });
        }
        // Before it had versions, containerd kept either.
        if v1.bucket(IMAGES)?.is_some() {
            return Ok(Schema::Images);
        }
        match v1.items().next().transpose()? {
            None => Ok(Schema::Empty),
            Some(item) if item.value.is_none() => Ok(Schema::Namespaced { version: 0 }),
            Some(_) => Ok(Schema::Other),
        }
    }

    /// The error of a store that a file of this schema is not for.
    pub(super) fn refused(self, path: &str) -> Error {
        let message = match self {
            Schema::Empty => format!("open {path}: there is nothing in it"),
            Schema::Images => format!(
                "open {path}: it has names of images without namespaces (the schema of containerd_images_open)"
            ),
            Schema::Namespaced { version } => format!(
                "open {path}: it has namespaces, as containerd's metadata today (version {version} of the schema of \
                 containerd_images_namespaced_open)"
            ),
            Schema::Other => format!("open {path}: it is a bolt file, but not one of image metadata"),
        };
        Error::new(ErrorKind::InvalidData, message)
    }
}

/// What the file at `path` holds. It is opened for reading: in use by somebody who writes, it is `InUse` after the
/// timeout of the options.
pub fn schema_of(path: &Path, options: &Options) -> Result<Schema> {
    let database = Database::open(path, &Options { access: Access::ReadOnly, ..options.clone() })?;
    database.schema()
}

/// An open file of either schema.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) file: BoltFile,
    /// For messages.
    pub(super) path: Arc<str>,
}

impl Database {
    pub(super) fn open(path: &Path, options: &Options) -> Result<Database> {
        let shown = path.display().to_string();
        let name = path.file_name().ok_or_else(|| Error::invalid(format!("open {shown}: it is no file")))?;
        let name = name
            .to_str()
            .ok_or_else(|| Error::new(ErrorKind::NotUtf8, format!("open {shown}: its name is not UTF-8")))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let dir = Dir::open(parent.unwrap_or(Path::new("."))).during(|| format!("open {shown}"))?;
        Ok(Database { file: BoltFile::open(&dir, name, options)?, path: shown.into() })
    }

    pub(super) fn schema(&self) -> Result<Schema> {
        Schema::of(&self.file.begin().scan().root()).during(|| format!("open {}", self.path))
    }

    /// Runs `change` in a transaction of its own, which is written only if it succeeds.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Transaction) -> Result<T>) -> Result<T> {
        let mut transaction = self.file.begin_write()?;
        let done = change(&mut transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}
