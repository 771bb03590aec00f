// SPDX-License-Identifier: MulanPSL-2.0
//! Images in namespaces, with labels and times: what containerd's image metadata has become.
//!
//! The layout is that of `meta.db` of containerd 1.2 to 2.x, so its tools and ours read the same file; but it is meant for
//! a file of our own. A daemon's file is only read, and only while the daemon does not run: it keeps it locked.
//!
//! Rules of containerd that are kept: a namespace comes into being with its first image; a list of a namespace that is
//! not there is empty; an update keeps the time of creation; empty label values are not stored. An image that does not
//! parse is told beside the others, where the original gives no list at all.
//!
//! Source: containerd 1.6, packages `metadata` and `filters`.

mod filter;
mod import;
mod record;
#[cfg(test)]
mod tests;
mod transaction;
mod valid;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::Target;
use super::boltfile::{Access, BoltFile, Options};
use super::database::{Database, Schema, V1, VERSION};
use super::varint;
use crate::error::{During, Error, ErrorKind, Result};
use crate::time::Timestamp;

pub use filter::Filters;
pub use import::ImportReport;
pub use transaction::NamespacedTransaction;

/// Version of the schema in files that are made here: that of containerd 1.2 to 1.7.
pub const OUR_VERSION: i64 = 3;
/// Newest version whose images are known to be where they are looked for: that of containerd 2.
pub const NEWEST_VERSION: i64 = 4;

/// Keys and values, in the byte order of the keys.
pub type Labels = BTreeMap<String, String>;

/// An image of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespacedImage {
    /// Its name, unique in its namespace.
    pub name: String,
    /// What it points to.
    pub target: Target,
    /// Annotations of the target.
    pub annotations: Labels,
    /// Labels of the image.
    pub labels: Labels,
    /// When it was created; ignored where an image is created or updated.
    pub created: Option<Timestamp>,
    /// When it was last changed; ignored where an image is created or updated.
    pub updated: Option<Timestamp>,
}

/// Images of a list.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that could be read, in the byte order of their names.
    pub images: Vec<NamespacedImage>,
    /// Names, as far as they are text, of those that could not, and why not.
    pub problems: Vec<(String, Error)>,
    /// How many could not be read: `problems` tells those beyond the first thousand together.
    pub unreadable: u64,
}

/// An open file of images in namespaces. It is locked until this and all its transactions are dropped.
#[derive(Debug)]
pub struct NamespacedFile {
    database: Database,
}

impl NamespacedFile {
    /// Opens a file; one opened for writing is made and initialised if it is absent or empty. Of another schema:
    /// `InvalidData`; of a version that is not known: `Unsupported`. See [`BoltFile::open`].
    pub fn open(path: &Path, options: &Options) -> Result<NamespacedFile> {
        let database = Database::open(path, options)?;
        let for_writing = options.access == Access::ReadWrite;
        match database.schema()? {
            Schema::Empty if for_writing => {
                let file = NamespacedFile::of(database);
                return file.initialise().map(|()| file);
            }
            Schema::Namespaced { version } => {
                let oldest = if for_writing { OUR_VERSION } else { 0 };
                if !(oldest..=NEWEST_VERSION).contains(&version) {
                    let message = format!(
                        "open {}: its schema has version {version}, which is not known",
                        database.path
                    );
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
            }
            other => return Err(other.refused(&database.path)),
        }
        Ok(NamespacedFile::of(database))
    }

    pub(super) fn of(database: Database) -> NamespacedFile {
        NamespacedFile { database }
    }

    pub(super) fn initialise(&self) -> Result<()> {
        let initialised = self.database.change(|transaction| {
            let mut root = transaction.root_mut()?;
            let mut v1 = root.create_bucket_if_not_exists(V1)?;
            v1.put(VERSION, &varint::encode(OUR_VERSION))
        });
        initialised.during(|| format!("initialise {}", self.database.path))
    }

    /// Begins a transaction that reads.
    pub fn begin(&self) -> NamespacedTransaction {
        NamespacedTransaction::new(self.file().begin(), &self.database)
    }

    /// Begins a transaction that writes, when the one before has ended; after the timeout: `InUse`.
    pub fn begin_write(&self) -> Result<NamespacedTransaction> {
        Ok(NamespacedTransaction::new(self.file().begin_write()?, &self.database))
    }

    /// [`NamespacedTransaction::create`] in a transaction of its own.
    pub fn create(&self, namespace: &str, image: &NamespacedImage) -> Result<NamespacedImage> {
        self.change(|transaction| transaction.create(namespace, image))
    }

    /// [`NamespacedTransaction::update`] in a transaction of its own.
    pub fn update(
        &self,
        namespace: &str,
        image: &NamespacedImage,
        fields: &[&str],
    ) -> Result<NamespacedImage> {
        self.change(|transaction| transaction.update(namespace, image, fields))
    }

    /// [`NamespacedTransaction::delete`] in a transaction of its own.
    pub fn delete(&self, namespace: &str, name: &str, digest: Option<&str>) -> Result<()> {
        self.change(|transaction| transaction.delete(namespace, name, digest))
    }

    /// [`NamespacedTransaction::get`] in a transaction of its own.
    pub fn get(&self, namespace: &str, name: &str) -> Result<NamespacedImage> {
        self.begin().get(namespace, name)
    }

    /// [`NamespacedTransaction::list`] in a transaction of its own.
    pub fn list(&self, namespace: &str, filters: &Filters) -> Result<Listing> {
        self.begin().list(namespace, filters)
    }

    /// [`NamespacedTransaction::namespaces`] in a transaction of its own.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        self.begin().namespaces()
    }

    /// [`NamespacedTransaction::create_namespace`] in a transaction of its own.
    pub fn create_namespace(&self, namespace: &str, labels: &Labels) -> Result<()> {
        self.change(|transaction| transaction.create_namespace(namespace, labels))
    }

    /// [`NamespacedTransaction::delete_namespace`] in a transaction of its own.
    pub fn delete_namespace(&self, namespace: &str) -> Result<()> {
        self.change(|transaction| transaction.delete_namespace(namespace))
    }

    /// Takes over the images of another file of this schema, such as the `meta.db` of a containerd that does not run,
    /// with their labels and times: of one namespace, or of all. That file is only read, and is waited for as long as
    /// `timeout` says. One transaction: all or, after an error, none.
    ///
    /// An image that is here already stays as it is, and one that cannot be read, or that no create would take, is left
    /// out: the report says which.
    pub fn import(
        &self,
        from: &Path,
        namespace: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<ImportReport> {
        import::import(self, from, namespace, timeout)
    }

    /// The same from one state of an open file.
    pub(super) fn import_from(
        &self,
        from: &NamespacedTransaction,
        namespace: Option<&str>,
    ) -> Result<ImportReport> {
        import::import_from(self, from, namespace)
    }

    fn change<T>(&self, change: impl FnOnce(&mut NamespacedTransaction) -> Result<T>) -> Result<T> {
        let mut transaction = self.begin_write()?;
        let done = change(&mut transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    fn file(&self) -> &BoltFile {
        &self.database.file
    }
}
