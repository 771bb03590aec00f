// SPDX-License-Identifier: MulanPSL-2.0
//! What can be done with the images of one state of the file.

use std::sync::Arc;

use super::record::{self, LABELS};
use super::{Filters, Labels, Listing, NamespacedImage, valid};
use crate::error::{During, Error, ErrorKind, Result};
use crate::metadata::boltfile::{Bucket, BucketMut, Transaction};
use crate::metadata::budget::Budget;
use crate::metadata::database::{Database, IMAGES, V1};
use crate::metadata::{ImageError, shown};
use crate::time::Timestamp;

/// How deep a namespace is looked into for whether it is empty.
const DEEPEST: usize = 4;

/// Most problems that a list tells one by one.
const MOST_PROBLEMS: usize = 1000;

/// One state of the file; dropped without [`NamespacedTransaction::commit`], nothing has happened. A call that fails has
/// changed nothing, or nothing can be committed any more.
#[derive(Debug)]
pub struct NamespacedTransaction {
    transaction: Transaction,
    path: Arc<str>,
    /// A change has failed when a part of it was made.
    spoilt: bool,
}

impl NamespacedTransaction {
    pub(super) fn new(transaction: Transaction, database: &Database) -> NamespacedTransaction {
        NamespacedTransaction { transaction, path: Arc::clone(&database.path), spoilt: false }
    }

    /// Makes an image; its times are now. Gives it as it was stored. There is one: [`ImageError::Exists`].
    ///
    /// `InvalidArgument` without name, media type, a digest or a positive size, with a label of more than 4,096 bytes, or
    /// with an annotation whose key is empty or has more than 32,768 bytes.
    pub fn create(&mut self, namespace: &str, image: &NamespacedImage) -> Result<NamespacedImage> {
        let now = Some(Timestamp::now());
        let image = NamespacedImage { created: now, updated: now, ..image.clone() };
        self.insert(namespace, &image)
    }

    /// The same, with the times that it has.
    pub(super) fn insert(&mut self, namespace: &str, image: &NamespacedImage) -> Result<NamespacedImage> {
        let what = || format!("create image {} in {namespace}", shown(image.name.as_bytes()));
        let mut create = || -> Result<_> {
            valid::namespace(namespace)?;
            valid::image(image)?;
            self.look_for_room(namespace, &image.name)?;
            self.change(|transaction| {
                let mut root = transaction.root_mut()?;
                let mut v1 = root.create_bucket_if_not_exists(V1)?;
                let mut place = v1.create_bucket_if_not_exists(namespace.as_bytes())?;
                let mut images = place.create_bucket_if_not_exists(IMAGES)?;
                record::write(image, &mut images.create_bucket(image.name.as_bytes())?)
            })
        };
        create().during(what)?;
        self.get(namespace, &image.name)
    }

    fn writable(&self) -> Result<()> {
        if self.transaction.is_writable() {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::ReadOnly, "tx not writable"))
        }
    }

    /// Whether an image could be made: that there is none, and no value where a bucket has to be.
    fn look_for_room(&self, namespace: &str, name: &str) -> Result<()> {
        self.writable()?;
        let mut place = self.transaction.root();
        for step in [V1, namespace.as_bytes(), IMAGES] {
            match place.bucket(step)? {
                Some(inner) => place = inner,
                None if place.get(step)?.is_some() => return Err(incompatible()),
                None => return Ok(()),
            }
        }
        if place.bucket(name.as_bytes())?.is_some() {
            return Err(ImageError::Exists.of("there is one".to_owned()));
        }
        if place.get(name.as_bytes())?.is_some() { Err(incompatible()) } else { Ok(()) }
    }

    /// Makes a change of which everything that can be known has been looked at: if it fails, a part may be made.
    fn change<T>(&mut self, change: impl FnOnce(&mut Transaction) -> Result<T>) -> Result<T> {
        let changed = change(&mut self.transaction);
        self.spoilt |= changed.is_err();
        changed
    }

    /// Whether a change has failed when a part of it was made.
    pub(super) fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// Changes an image; the time of its creation stays. Gives it as it is stored then. There is none:
    /// [`ImageError::NotFound`].
    ///
    /// Without fields everything is replaced. `target` (with its annotations), `labels`, `labels.KEY`, `annotations` and
    /// `annotations.KEY` name what is replaced alone; a key without value is taken away. Other fields: `InvalidArgument`.
    pub fn update(
        &mut self,
        namespace: &str,
        image: &NamespacedImage,
        fields: &[&str],
    ) -> Result<NamespacedImage> {
        let what = || format!("update image {} in {namespace}", shown(image.name.as_bytes()));
        let mut update = || -> Result<_> {
            valid::namespace(namespace)?;
            let before = self.find(namespace, &image.name)?.ok_or_else(none)?;
            let mut after = before.clone();
            if fields.is_empty() {
                after = image.clone();
            }
            for field in fields {
                update_field(&mut after, image, field)?;
            }
            after.created = before.created;
            after.updated = Some(Timestamp::now());
            valid::image(&after)?;
            self.writable()?;
            self.change(|transaction| {
                images_mut(transaction, namespace, |images| {
                    let bucket = images.bucket(image.name.as_bytes())?;
                    record::write(&after, &mut bucket.ok_or_else(none)?)
                })
            })
        };
        update().during(what)?;
        self.get(namespace, &image.name)
    }

    /// An image. There is none: [`ImageError::NotFound`].
    pub fn get(&self, namespace: &str, name: &str) -> Result<NamespacedImage> {
        let get = || -> Result<_> {
            valid::namespace(namespace)?;
            self.find(namespace, name)?.ok_or_else(none)
        };
        get().during(|| format!("get image {} of {namespace} from {}", shown(name.as_bytes()), self.path))
    }

    fn find(&self, namespace: &str, name: &str) -> Result<Option<NamespacedImage>> {
        let scan = self.transaction.scan();
        let Some(images) = images(&scan.root(), namespace.as_bytes())? else { return Ok(None) };
        let Some(bucket) = images.bucket(name.as_bytes())? else { return Ok(None) };
        record::read(name.as_bytes(), &bucket, &mut self.budget()).map(Some)
    }

    fn budget(&self) -> Budget {
        Budget::of(&self.transaction)
    }

    /// The images that one of the filters chooses; all if there is none. There is no such namespace: none.
    pub fn list(&self, namespace: &str, filters: &Filters) -> Result<Listing> {
        let list = || -> Result<_> {
            valid::namespace(namespace)?;
            let mut listing = Listing::default();
            let scan = self.transaction.scan();
            let Some(images) = images(&scan.root(), namespace.as_bytes())? else { return Ok(listing) };
            let mut budget = self.budget();
            for image in images.buckets() {
                let (name, image) = image?;
                let image = match image {
                    Ok(Some(bucket)) => record::read(&name, &bucket, &mut budget),
                    Ok(None) => Err(Error::corrupt("it is a value, not an image")),
                    Err(error) => Err(error),
                };
                listing.unreadable += u64::from(image.is_err());
                match image {
                    Ok(image) if filters.choose(&image) => listing.images.push(image),
                    Ok(_) => {}
                    Err(_) if listing.problems.len() >= MOST_PROBLEMS => {}
                    Err(error) => {
                        let problem = error.context(format!("image {}", shown(&name)));
                        listing.problems.push((budget.text(&name)?, problem));
                    }
                }
            }
            let told = u64::try_from(listing.problems.len()).unwrap_or(u64::MAX);
            let more = listing.unreadable.saturating_sub(told);
            if more > 0 {
                let problem = Error::corrupt(format!("{more} more images cannot be read"));
                listing.problems.push((String::new(), problem));
            }
            Ok(listing)
        };
        list().during(|| format!("list the images of {namespace} in {}", self.path))
    }

    /// Takes an image away. There is none, or it points to something else than `digest`: [`ImageError::NotFound`].
    pub fn delete(&mut self, namespace: &str, name: &str, digest: Option<&str>) -> Result<()> {
        let mut delete = || -> Result<_> {
            valid::namespace(namespace)?;
            if let Some(digest) = digest {
                let image = self.find(namespace, name)?.ok_or_else(none)?;
                if image.target.digest != digest {
                    let message = format!(
                        "it points to {}, not to {}",
                        shown(image.target.digest.as_bytes()),
                        shown(digest.as_bytes())
                    );
                    return Err(ImageError::NotFound.of(message));
                }
            }
            images_mut(&mut self.transaction, namespace, |images| {
                if images.view().bucket(name.as_bytes())?.is_none() && images.get(name.as_bytes())?.is_none()
                {
                    return Err(none());
                }
                images.delete_bucket(name.as_bytes())
            })
        };
        delete().during(|| format!("delete image {} of {namespace}", shown(name.as_bytes())))
    }

    /// The namespaces, in the byte order of their names. What is no name of a namespace is left out.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        let list = || -> Result<_> {
            let scan = self.transaction.scan();
            let Some(v1) = scan.root().bucket(V1)? else { return Ok(Vec::new()) };
            let mut names = Vec::new();
            for item in v1.items() {
                let item = item?;
                let name = std::str::from_utf8(&item.key).ok().filter(|name| valid::namespace(name).is_ok());
                if let (None, Some(name)) = (item.value, name) {
                    names.push(name.to_owned());
                }
            }
            Ok(names)
        };
        list().during(|| format!("list the namespaces of {}", self.path))
    }

    /// Labels of a namespace. There is none: `NotFound`.
    pub fn namespace_labels(&self, namespace: &str) -> Result<Labels> {
        let labels = || -> Result<_> {
            let scan = self.transaction.scan();
            let v1 = scan.root().bucket(V1)?.ok_or_else(no_namespace)?;
            let place = v1.bucket(namespace.as_bytes())?.ok_or_else(no_namespace)?;
            record::read_labels(&place, LABELS, &mut self.budget())
        };
        labels().during(|| format!("namespace {}", shown(namespace.as_bytes())))
    }

    /// Makes a namespace. There is one: `AlreadyExists`.
    pub fn create_namespace(&mut self, namespace: &str, labels: &Labels) -> Result<()> {
        let mut create = || -> Result<_> {
            valid::namespace(namespace)?;
            valid::labels(labels)?;
            self.writable()?;
            if let Some(v1) = self.transaction.root().bucket(V1)? {
                if v1.bucket(namespace.as_bytes())?.is_some() {
                    return Err(Error::new(ErrorKind::AlreadyExists, "there is one"));
                }
                if v1.get(namespace.as_bytes())?.is_some() {
                    return Err(incompatible());
                }
            }
            self.change(|transaction| {
                let mut root = transaction.root_mut()?;
                let mut v1 = root.create_bucket_if_not_exists(V1)?;
                let mut place = v1.create_bucket(namespace.as_bytes())?;
                record::write_labels(labels, &mut place, LABELS)
            })
        };
        create().during(|| format!("create namespace {}", shown(namespace.as_bytes())))
    }

    /// Takes a namespace away. There is none: `NotFound`; it has images or anything else: `InUse`.
    pub fn delete_namespace(&mut self, namespace: &str) -> Result<()> {
        let mut delete = || -> Result<_> {
            valid::namespace(namespace)?;
            let mut root = self.transaction.root_mut()?;
            let mut v1 = root.bucket(V1)?.ok_or_else(no_namespace)?;
            let view = v1.view().bucket(namespace.as_bytes())?.ok_or_else(no_namespace)?;
            for item in view.items() {
                let name = item?.key;
                if *name == *LABELS {
                    continue;
                }
                let is_empty = match view.bucket(&name)? {
                    Some(bucket) => has_no_values(&bucket, 0)?,
                    None => false,
                };
                if !is_empty {
                    let message = format!("it still has {}", shown(&name));
                    return Err(Error::new(ErrorKind::InUse, message));
                }
            }
            v1.delete_bucket(namespace.as_bytes())
        };
        delete().during(|| format!("delete namespace {}", shown(namespace.as_bytes())))
    }

    #[cfg(test)]
    pub(super) fn root(&self) -> Bucket<'_> {
        self.transaction.root()
    }

    /// Why the buckets of the file do not fit together, if they do not.
    pub(super) fn check(&self) -> Result<()> {
        self.transaction.check_buckets().during(|| format!("look at {}", self.path))
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

/// Whether there are only empty buckets in a bucket. One that lies deeper than containerd's do counts as a value.
fn has_no_values(bucket: &Bucket<'_>, depth: usize) -> Result<bool> {
    for item in bucket.items() {
        let item = item?;
        let inner = bucket.bucket(&item.key)?.filter(|_| depth < DEEPEST);
        let Some(inner) = inner else { return Ok(false) };
        if !has_no_values(&inner, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn update_field(after: &mut NamespacedImage, image: &NamespacedImage, field: &str) -> Result<()> {
    fn copy(into: &mut Labels, from: &Labels, key: &str) {
        match from.get(key) {
            Some(value) => into.insert(key.to_owned(), value.clone()),
            None => into.remove(key),
        };
    }
    if let Some(key) = field.strip_prefix("labels.") {
        copy(&mut after.labels, &image.labels, key);
        return Ok(());
    }
    if let Some(key) = field.strip_prefix("annotations.") {
        copy(&mut after.annotations, &image.annotations, key);
        return Ok(());
    }
    match field {
        "labels" => after.labels = image.labels.clone(),
        "annotations" => after.annotations = image.annotations.clone(),
        "target" => {
            after.target = image.target.clone();
            after.annotations = image.annotations.clone();
        }
        other => return Err(Error::invalid(format!("cannot update field {}", shown(other.as_bytes())))),
    }
    Ok(())
}

fn none() -> Error {
    ImageError::NotFound.of("there is none".to_owned())
}

fn incompatible() -> Error {
    Error::invalid("incompatible value")
}

fn no_namespace() -> Error {
    Error::not_found("there is no such namespace")
}

fn images<'t>(root: &Bucket<'t>, namespace: &[u8]) -> Result<Option<Bucket<'t>>> {
    let Some(v1) = root.bucket(V1)? else { return Ok(None) };
    let Some(place) = v1.bucket(namespace)? else { return Ok(None) };
    place.bucket(IMAGES)
}

fn images_mut<T>(
    transaction: &mut Transaction,
    namespace: &str,
    change: impl FnOnce(&mut BucketMut<'_>) -> Result<T>,
) -> Result<T> {
    let mut root = transaction.root_mut()?;
    let mut v1 = root.bucket(V1)?.ok_or_else(none)?;
    let mut place = v1.bucket(namespace.as_bytes())?.ok_or_else(none)?;
    let mut images = place.bucket(IMAGES)?.ok_or_else(none)?;
    change(&mut images)
}
