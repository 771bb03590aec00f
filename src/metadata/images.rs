// SPDX-License-Identifier: MulanPSL-2.0
//! Names of images and what they point to: the image store of containerd in April 2017.
//!
//! Source: containerd 1ea809dc2, package `images`. Kept: the layout, the order of a list, that a put replaces, that every
//! call finds nothing before the file was initialised. Better: deletion of a missing name is "not found", as it was six
//! weeks later; a value in the place of an image, and a transaction that has ended, are errors instead of panics.

use std::path::Path;
use std::sync::Arc;

use super::boltfile::{Bucket, BucketMut, LONGEST_VALUE, Options, Transaction};
use super::budget::Budget;
use super::database::{Database, IMAGES, Schema, V1};
use super::{ImageError, Target, shown, varint};
use crate::error::{During, Error, ErrorKind, Result};

pub(super) const DIGEST: &[u8] = b"digest";
pub(super) const MEDIA_TYPE: &[u8] = b"mediatype";
pub(super) const SIZE: &[u8] = b"size";

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Any bytes, though most are references.
    pub name: Vec<u8>,
    /// What it points to.
    pub target: Target,
}

/// An open file of images. It is locked until this and all its transactions are dropped.
#[derive(Debug)]
pub struct ImageFile {
    database: Database,
}

impl ImageFile {
    /// Opens a file; one opened for writing is made if it is absent, and holds nothing until [`ImageFile::init`]. Of
    /// another schema: `InvalidData`. See [`super::boltfile::BoltFile::open`].
    pub fn open(path: &Path, options: &Options) -> Result<ImageFile> {
        let database = Database::open(path, options)?;
        match database.schema()? {
            Schema::Empty | Schema::Images => Ok(ImageFile::of(database)),
            other => Err(other.refused(&database.path)),
        }
    }

    pub(super) fn of(database: Database) -> ImageFile {
        ImageFile { database }
    }

    /// Makes the place for images; that it is there already is fine. Waits for a transaction that writes.
    pub fn init(&self) -> Result<()> {
        let init = |transaction: &mut Transaction| {
            let mut root = transaction.root_mut()?;
            let mut v1 = root.create_bucket_if_not_exists(V1)?;
            v1.create_bucket_if_not_exists(IMAGES).map(drop)
        };
        self.database.change(init).during(|| format!("initialise {}", self.database.path))
    }

    /// Begins a transaction that reads.
    pub fn begin(&self) -> ImageTransaction {
        ImageTransaction::new(self.database.file.begin(), &self.database)
    }

    /// Begins a transaction that writes, when the one before has ended; after the timeout: `InUse`.
    pub fn begin_write(&self) -> Result<ImageTransaction> {
        Ok(ImageTransaction::new(self.database.file.begin_write()?, &self.database))
    }

    /// [`ImageTransaction::put`] in a transaction of its own.
    pub fn put(&self, name: &[u8], target: &Target) -> Result<()> {
        let mut transaction = self.begin_write()?;
        transaction.put(name, target)?;
        transaction.commit()
    }

    /// [`ImageTransaction::get`] in a transaction of its own.
    pub fn get(&self, name: &[u8]) -> Result<Image> {
        self.begin().get(name)
    }

    /// [`ImageTransaction::list`] in a transaction of its own.
    pub fn list(&self) -> Result<Vec<Image>> {
        self.begin().list()
    }

    /// [`ImageTransaction::delete`] in a transaction of its own.
    pub fn delete(&self, name: &[u8]) -> Result<()> {
        let mut transaction = self.begin_write()?;
        transaction.delete(name)?;
        transaction.commit()
    }
}

/// One state of the file; dropped without [`ImageTransaction::commit`], nothing has happened.
#[derive(Debug)]
pub struct ImageTransaction {
    transaction: Transaction,
    path: Arc<str>,
    /// A change has failed when a part of it was made.
    spoilt: bool,
}

impl ImageTransaction {
    fn new(transaction: Transaction, database: &Database) -> ImageTransaction {
        ImageTransaction { transaction, path: Arc::clone(&database.path), spoilt: false }
    }

    /// Whether it was begun for changes.
    pub fn is_writable(&self) -> bool {
        self.transaction.is_writable()
    }

    /// Lets a name point to something, whatever it pointed to before. The target is not looked at.
    ///
    /// Not initialised: [`ImageError::NotFound`]. `bucket name required` if it is empty, `incompatible value` if something
    /// else has the name, `tx not writable` (`ReadOnly`) in a transaction that reads.
    pub fn put(&mut self, name: &[u8], target: &Target) -> Result<()> {
        let mut begun = false;
        let put = |mut images: BucketMut<'_>| {
            for text in [&target.digest, &target.media_type] {
                if text.len() > LONGEST_VALUE {
                    return Err(Error::invalid("value too large"));
                }
            }
            let mut image = images.create_bucket_if_not_exists(name)?;
            for key in [DIGEST, MEDIA_TYPE, SIZE] {
                if image.view().bucket(key)?.is_some() {
                    return Err(Error::invalid("incompatible value"));
                }
            }
            begun = true;
            image.put(DIGEST, target.digest.as_bytes())?;
            image.put(MEDIA_TYPE, target.media_type.as_bytes())?;
            image.put(SIZE, &varint::encode(target.size))
        };
        let what = || format!("put image {} into {}", shown(name), self.path);
        let put = images_mut(&mut self.transaction, put);
        self.spoilt |= begun && put.is_err();
        put.during(what)
    }

    /// An image; there is none, or the file was not initialised: [`ImageError::NotFound`].
    ///
    /// Keys that are missing, or do not parse, are empty or 0 in the result; keys that are not known are passed over.
    pub fn get(&self, name: &[u8]) -> Result<Image> {
        let get = || -> Result<_> {
            let root = self.transaction.root();
            let image = match images(&root)? {
                Some(images) => images.bucket(name)?,
                None => None,
            };
            let Some(image) = image else { return Ok(None) };
            let target = read_target(&image, &mut Budget::of(&self.transaction))?;
            Ok(Some(Image { name: name.to_vec(), target }))
        };
        let what = || format!("get image {} from {}", shown(name), self.path);
        get().during(what)?.ok_or_else(|| ImageError::NotFound.of(what()))
    }

    /// All images in the byte order of their names. Not initialised: [`ImageError::NotFound`]. A value where an image
    /// should be: `Corrupt`.
    pub fn list(&self) -> Result<Vec<Image>> {
        let list = || -> Result<_> {
            let scan = self.transaction.scan();
            let root = scan.root();
            let Some(images) = images(&root)? else { return Ok(None) };
            let mut budget = Budget::of(&self.transaction);
            let mut found = Vec::new();
            for image in images.buckets() {
                let (name, image) = image?;
                let what = || format!("image {}", shown(&name));
                let Some(image) = image.during(what)? else {
                    return Err(Error::corrupt(format!("{}: it is a value, not an image", shown(&name))));
                };
                budget.take(name.len())?;
                let target = read_target(&image, &mut budget).during(what)?;
                found.push(Image { name: name.to_vec(), target });
            }
            Ok(Some(found))
        };
        let what = || format!("list the images of {}", self.path);
        list().during(what)?.ok_or_else(|| ImageError::NotFound.of(what()))
    }

    /// Takes an image away, with all that lies in it. There is none, or the file was not initialised:
    /// [`ImageError::NotFound`]. `incompatible value` if something else has the name, `tx not writable` (`ReadOnly`) in a
    /// transaction that reads.
    pub fn delete(&mut self, name: &[u8]) -> Result<()> {
        let delete = |mut images: BucketMut<'_>| {
            if images.view().bucket(name)?.is_none() && images.get(name)?.is_none() {
                return Err(missing());
            }
            images.delete_bucket(name)
        };
        let what = || format!("delete image {} from {}", shown(name), self.path);
        images_mut(&mut self.transaction, delete).during(what)
    }

    /// Writes the changes. They are durable when it returns. See [`Transaction::commit`].
    pub fn commit(self) -> Result<()> {
        if self.spoilt {
            let message = format!("commit to {}: an earlier change was made in part only", self.path);
            return Err(Error::new(ErrorKind::Latched, message));
        }
        self.transaction.commit()
    }
}

fn missing() -> Error {
    ImageError::NotFound.of("there is none".to_owned())
}

fn images<'t>(root: &Bucket<'t>) -> Result<Option<Bucket<'t>>> {
    match root.bucket(V1)? {
        Some(v1) => v1.bucket(IMAGES),
        None => Ok(None),
    }
}

/// The original looks for the bucket before it finds out that it must not write.
fn images_mut(transaction: &mut Transaction, change: impl FnOnce(BucketMut<'_>) -> Result<()>) -> Result<()> {
    if images(&transaction.root())?.is_none() {
        return Err(ImageError::NotFound.of("the file was not initialised".to_owned()));
    }
    let mut root = transaction.root_mut()?;
    let Some(mut v1) = root.bucket(V1)? else { return Err(missing()) };
    let Some(images) = v1.bucket(IMAGES)? else { return Err(missing()) };
    change(images)
}

pub(super) fn read_target(bucket: &Bucket<'_>, budget: &mut Budget) -> Result<Target> {
    let mut text = |key: &[u8]| budget.text(&bucket.get(key)?.unwrap_or_default());
    let size = bucket.get(SIZE)?.and_then(|value| varint::decode(&value)).unwrap_or(0);
    Ok(Target { media_type: text(MEDIA_TYPE)?, digest: text(DIGEST)?, size })
}
