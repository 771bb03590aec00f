// SPDX-License-Identifier: MulanPSL-2.0
//! The image store: names, big data and the records that tie an image to its top layer.
//!
//! ```text
//! <dir>/<image id>/images.json                     0600  the record
//! <dir>/<image id>/manifest                        0600  big data "manifest"
//! <dir>/<image id>/=<base64 of "sha256:<id>">      0600  big data: the image's config
//! <dir>/<image id>/<big data name>                 0600  other big data
//! <dir>/.isula-storage/                            lock, generation, trash, quarantine
//! <dir>/.converted-<16 hex>/                       an image of schema 1 on its way; removed at the next start
//! ```
//!
//! Lifecycle of an image: `create` makes directory and record, then the caller stores config and manifest. Until both
//! are there it is listed only by the process that made it, unless the store was opened otherwise; a start reports it
//! as incomplete and leaves it where it is, and creating it again completes it. `delete` moves the whole directory to
//! the trash.
//!
//! Concurrency: lookups read an index in memory and never wait for the disk; changes come one after the other under
//! one mutex, write the disk first and then put a new immutable image into the index. Nothing is locked while big
//! data are read or removed. How other processes are kept away is told in [`Ownership`]; they see a change by the
//! counter in `generation`.
//!
//! Crash safety: each file is replaced in one step. When a name moves, the winner is written first: a crash leaves it
//! on both, and the start gives it to the image that was loaded first.
//!
//! Source: iSulad's image store, whose directories this one reads and writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use once_cell::sync::OnceCell;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::layer::Problem;
use crate::persist::{Durability, Ownership, Quarantined, StateDir};
use crate::record::image::ImageRecord;
use crate::spec::config::ImageConfig;
use crate::sys::fs::Dir;
use crate::time::Timestamp;
use crate::units::Usage;

mod big_data;
mod change;
mod check;
mod convert;
mod create;
mod examine;
mod files;
mod generation;
mod hide;
mod index;
mod load;
mod names;
mod open;
mod remote;
mod summary;
mod unlisted;

#[cfg(test)]
mod tests;

pub use remote::{ImageChanges, LayerChains};
pub use summary::ImageSummary;
pub use unlisted::Unlisted;

use change::Control;
use generation::Generation;
use index::{Config, Image, Index};

/// Key of the manifest among the big data.
pub const MANIFEST: &str = "manifest";

/// Most bytes of one piece of big data; what can be stored can be read again. The reference stores any length, but
/// reads at most 10,477,567 bytes. Manifest and config are limited to what its parser takes, 10 MiB.
pub const MAX_BIG_DATA: u64 = 64 << 20;

/// What the image store asks of the layer store, to convert images of schema 1.
pub trait LayerLookup: Send + Sync {
    /// Layers with this compressed digest: `(parent id, uncompressed digest)` of each; empty when there is none.
    fn by_compressed_digest(&self, digest: &str) -> Vec<LayerCandidate>;
}

/// A layer that may be the one a schema 1 manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCandidate {
    /// Its id.
    pub id: String,
    /// The layer it stands on.
    pub parent: Option<String>,
    /// Its diff ID.
    pub uncompressed_digest: Option<String>,
}

/// How to open an image store.
#[derive(Clone)]
pub struct ImageStoreOptions {
    /// The image directory itself.
    pub dir: PathBuf,
    /// How the store is held.
    pub ownership: Ownership,
    /// How writes are made durable.
    pub durability: Durability,
    /// Registry host that is not shown in names, such as `docker.io` or `docker.io/`; none or empty: names stay as they
    /// are.
    pub default_host: Option<String>,
    /// Where layers of schema 1 images are looked up; none: such images stay as they are.
    pub layers: Option<Arc<dyn LayerLookup>>,
    /// Whether a start lists images that have a record, but no manifest or no config. The reference leaves them out:
    /// its callers were interrupted while they made them. By the documents of the image store, an image is complete
    /// with its record.
    pub list_incomplete: bool,
}

/// What a new image is to be.
#[derive(Debug, Clone, Default)]
pub struct CreateImage {
    /// Its id; none: 64 random hex digits.
    pub id: Option<ImageId>,
    /// Its names; duplicates are dropped, the rest sorted.
    pub names: Vec<String>,
    /// Id of its top layer.
    pub layer: Option<String>,
    /// Free text.
    pub metadata: Option<String>,
    /// When it was made; none: now.
    pub created: Option<Timestamp>,
    /// Digest by which it is searched.
    pub digest: Option<String>,
}

/// The image store. All methods may be called from any thread. "By any name" means: id, name, unique short id of at
/// least three digits, or digest reference, in this order.
///
/// Every changing method fails with `ReadOnly` on a store opened so, with `InUse` when another process holds a shared
/// one too long, and with `Latched` after a failure that left memory and disk apart.
pub struct ImageStore {
    root: Dir,
    state: StateDir,
    durability: Durability,
    default_host: Option<String>,
    layers: Option<Arc<dyn LayerLookup>>,
    list_incomplete: bool,
    /// Layers that other hosts share: who lists images only if theirs are there.
    chains: Option<Arc<dyn LayerChains>>,
    /// How the directory looked when it was last read for that.
    last_look: Mutex<Vec<remote::Look>>,
    generation: OnceCell<Generation>,
    /// Number of the generation that the index shows. Only of interest where others may change the store.
    seen: AtomicU64,
    // In the order in which they are locked:
    /// Held by whoever changes the store.
    control: Mutex<Control>,
    index: RwLock<Index>,
    /// Images that are not listed though they could be loaded, and why.
    hidden: RwLock<BTreeMap<ImageId, String>>,
    problems: RwLock<Vec<Problem>>,
    /// Records that were handed out in lists, for tests that count work.
    #[cfg(test)]
    pub(crate) looked_at: AtomicU64,
}

impl ImageStore {
    /// Opens the store and loads all images. Never deletes out of doubt. A read-only store must exist.
    pub fn open(options: ImageStoreOptions) -> Result<ImageStore> {
        open::open(options, None)
    }

    /// Opens an image directory that other hosts use as well. Images are listed only while their whole chain of layers is,
    /// nothing is healed, and where the directory cannot be written it is opened for reading.
    pub fn open_shared(options: ImageStoreOptions, chains: Arc<dyn LayerChains>) -> Result<ImageStore> {
        remote::open_shared(options, chains)
    }

    /// Looks for images that others have made, changed or deleted, with this program or with iSulad; after layers came or
    /// went (`layers_changed`) also for those whose chains are whole now, or are not any more.
    pub fn refresh_shared(&self, layers_changed: bool) -> Result<ImageChanges> {
        remote::refresh(self, layers_changed)
    }

    /// Lists one image whose directory another host has made; listed already: `false`. Not there: `NotFound`, not whole:
    /// `Corrupt`.
    pub fn append(&self, id: &ImageId) -> Result<bool> {
        remote::append(self, id)
    }

    /// Takes an image out of the lists until the directory is read again; its files are left alone. Not listed: `false`.
    pub fn forget(&self, id: &ImageId) -> bool {
        let mut index = self.index.write();
        let listed = index.get(id.as_str()).is_some();
        index.remove(id.as_str());
        listed
    }

    /// The top layer that an image's record on disk names, listed or not. No record: `NotFound`.
    pub fn top_layer_on_disk(&self, id: &ImageId) -> Result<Option<String>> {
        remote::top_layer_on_disk(self, id)
    }

    /// The image directory.
    pub fn dir(&self) -> &Path {
        self.root.path()
    }

    /// How the store is held.
    pub fn ownership(&self) -> Ownership {
        self.state.ownership()
    }

    /// Makes an image record. Its id exists: `AlreadyExists`; a name belongs to another image: `AlreadyExists`.
    pub fn create(&self, image: &CreateImage) -> Result<ImageId> {
        create::create(self, image)
    }

    /// Replaces the names; names held by other images move, durably, winner first. Empty: `InvalidArgument`.
    pub fn set_names(&self, image: &str, names: &[String]) -> Result<()> {
        names::set(self, image, names)
    }

    /// Adds a name; held by another image: it moves.
    pub fn add_name(&self, image: &str, name: &str) -> Result<()> {
        names::add(self, image, name)
    }

    /// Deletes an image by any name; unknown is fine (`false`), and so is an ambiguous short id.
    pub fn delete(&self, image: &str) -> Result<bool> {
        create::delete(self, image)
    }

    /// Deletes all images. Goes on after a failure and returns the first.
    pub fn wipe(&self) -> Result<()> {
        create::wipe(self)
    }

    /// Writes every record whose memory is ahead of the disk; clears the latch of an earlier failure when all succeed.
    pub fn save(&self) -> Result<()> {
        change::save(self)
    }

    /// Reads the directory again; clears the latch of an earlier failure. On an error memory stays as it was.
    pub fn load(&self) -> Result<()> {
        open::load(self)
    }

    /// Sets when it was loaded. A time that has no calendar date: `InvalidArgument`.
    pub fn set_loaded(&self, image: &str, time: Timestamp) -> Result<()> {
        let text = local_text(time)?;
        change::edit(self, image, |record| record.loaded = Some(text))
    }

    /// Sets the free text.
    pub fn set_metadata(&self, image: &str, metadata: &str) -> Result<()> {
        no_nul("metadata", metadata)?;
        change::edit(self, image, |record| record.metadata = Some(metadata.to_owned()))
    }

    /// Sets the size in bytes.
    pub fn set_size(&self, image: &str, size: u64) -> Result<()> {
        change::edit(self, image, |record| record.size = size)
    }

    /// Stores big data under a key, which must not be empty, `.`, `..`, `images.json` or one whose file name has a
    /// slash or more than 255 bytes (`InvalidArgument`). At most [`MAX_BIG_DATA`] bytes (`LimitExceeded`).
    pub fn set_big_data(&self, image: &str, key: &str, data: &[u8]) -> Result<()> {
        big_data::set(self, image, key, data)
    }

    /// Whether an image of any such name exists. If changes of other processes cannot be looked for now, the answer is
    /// as of the last time.
    pub fn exists(&self, image: &str) -> bool {
        if let Err(error) = open::refresh(self) {
            log::warn!("look for changes of image store {}: {}", self.dir().display(), error.report());
        }
        self.index.read().meant(image, self.default_host.as_deref()).is_ok()
    }

    /// Full id of the image of any such name. Ambiguous short ids are `NotFound` and the message says so.
    pub fn lookup(&self, image: &str) -> Result<ImageId> {
        self.find(image).map(|image| image.id.clone())
    }

    /// The record of the image of any such name.
    pub fn get(&self, image: &str) -> Result<Arc<ImageRecord>> {
        self.find(image).map(|image| Arc::clone(&image.record))
    }

    /// All records, in order of creation (after a restart: of their `loaded`, then id).
    pub fn list(&self) -> Result<Vec<Arc<ImageRecord>>> {
        self.read(|index| self.tallied(index).map(|image| Arc::clone(&image.record)).collect())
    }

    /// Records of the images with this digest (`sha256:…`, or its 64 hex digits), in order; none has it: `NotFound`.
    pub fn by_digest(&self, digest: &str) -> Result<Vec<Arc<ImageRecord>>> {
        let full = crate::reference::parse_digest(digest, None)?;
        let records: Vec<_> =
            self.read(|index| index.with_digest(&full).map(|image| Arc::clone(&image.record)).collect())?;
        if records.is_empty() {
            return Err(Error::not_found(format!("no image has the digest {full}")));
        }
        Ok(records)
    }

    /// Number of images.
    pub fn count(&self) -> Result<usize> {
        self.read(Index::len)
    }

    /// The same as [`summary`](Self::summary) without copying it.
    pub fn shared_summary(&self, image: &str) -> Result<Arc<ImageSummary>> {
        self.find(image).map(|image| Arc::clone(&image.summary))
    }

    /// What lists show of one image; no disk is read.
    pub fn summary(&self, image: &str) -> Result<ImageSummary> {
        self.find(image).map(|image| ImageSummary::clone(&image.summary))
    }

    /// What lists show of all images, in order.
    pub fn summaries(&self) -> Result<Vec<ImageSummary>> {
        self.read(|index| self.tallied(index).map(|image| ImageSummary::clone(&image.summary)).collect())
    }

    /// The same without copying them.
    pub fn shared_summaries(&self) -> Result<Vec<Arc<ImageSummary>>> {
        self.read(|index| self.tallied(index).map(|image| Arc::clone(&image.summary)).collect())
    }

    /// The image's config as it was when it was loaded or set; `Corrupt`/`NotFound` when it has none.
    pub fn config(&self, image: &str) -> Result<Arc<ImageConfig>> {
        let image = self.find(image)?;
        match &image.config {
            Config::Whole(config) => config.parse().map(Arc::new),
            Config::Missing => Err(Error::not_found(format!("image {} has no config", image.id))),
            Config::Broken(why) => Err(Error::corrupt(format!("config of image {}: {why}", image.id))),
        }
    }

    /// Names of the image.
    pub fn names(&self, image: &str) -> Result<Vec<String>> {
        self.find(image).map(|image| image.record.names.clone())
    }

    /// Free text, if set.
    pub fn metadata(&self, image: &str) -> Result<Option<String>> {
        self.find(image).map(|image| image.record.metadata.clone())
    }

    /// Top layer, if set.
    pub fn top_layer(&self, image: &str) -> Result<Option<String>> {
        self.find(image).map(|image| image.record.layer.clone())
    }

    /// Content of big data: of the file as it is, whether the record knows it or not. Absent: `NotFound`. What it
    /// should be is compared by [`check`](Self::check) only: a wrong size in a record is no reason to hide the data.
    pub fn big_data(&self, image: &str, key: &str) -> Result<Vec<u8>> {
        let id = self.lookup(image)?;
        files::read_big_data(&self.root, id.as_str(), key)
    }

    /// Size of big data in bytes, as recorded. Not recorded but there: of the file, and it is recorded now.
    pub fn big_data_size(&self, image: &str, key: &str) -> Result<i64> {
        big_data::size(self, image, key)
    }

    /// Digest of big data, as recorded. Not recorded but there: of the file, and it is recorded now.
    pub fn big_data_digest(&self, image: &str, key: &str) -> Result<String> {
        big_data::digest(self, image, key)
    }

    /// Whether a layer is the top layer of a listed image; no list is walked.
    pub fn is_top_layer(&self, layer: &str) -> Result<bool> {
        self.read(|index| index.is_top_layer(layer))
    }

    /// A number that grows whenever images stop being listed. As long as it is the same, what
    /// [`unlisted`](Self::unlisted) said is true still.
    pub fn removals(&self) -> u64 {
        self.index.read().removals()
    }

    /// Takes images out of the lists, each with the reason why it cannot be used; their directories stay where they are.
    /// Names that they shared with others are the others'. Lasts until [`reveal`](Self::reveal) or until the store is
    /// opened again. Writes nothing of these images.
    pub fn hide(&self, images: Vec<(ImageId, String)>) -> Result<()> {
        hide::hide(self, images)
    }

    /// Lists a hidden image again, without the names that others have by now; not hidden: `false`.
    pub fn reveal(&self, id: &ImageId) -> Result<bool> {
        hide::reveal(self, id)
    }

    /// The image as its record is on disk, if it is hidden.
    pub fn hidden(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        hide::hidden(self, id)
    }

    /// Keys of all big data, in order of insertion.
    pub fn big_data_names(&self, image: &str) -> Result<Vec<String>> {
        self.find(image).map(|image| image.record.big_data_names.clone())
    }

    /// What the image directory holds (records and big data, not layers).
    pub fn usage(&self) -> Result<Usage> {
        self.root.usage()
    }

    /// What was found wrong when the store was loaded.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.read().clone()
    }

    /// Reads all big data and compares them with what is recorded; changes nothing. Includes
    /// [`problems`](Self::problems).
    pub fn check(&self) -> Result<Vec<Problem>> {
        check::check(self)
    }

    /// What lies in quarantine.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.state.quarantined()
    }

    /// Images that are kept, but not listed: put aside, or left where they are because they could not be loaded.
    /// Whoever deletes layers keeps theirs: they may come back.
    pub fn unlisted(&self) -> Result<Vec<Unlisted>> {
        unlisted::unlisted(self)
    }

    /// What is known of an image that was put aside; `None` if it cannot be opened.
    pub fn look_aside(&self, entry: &Quarantined) -> Option<Unlisted> {
        unlisted::look_aside(&entry.path, &entry.name)
    }

    /// Puts an image aside: it is no longer listed, its files are kept.
    pub fn quarantine(&self, image: &str, reason: &str) -> Result<Quarantined> {
        create::quarantine(self, image, reason)
    }

    /// Brings back what was put aside and reads the directory again. Something is in its place: `AlreadyExists`.
    pub fn restore(&self, entry: &Quarantined) -> Result<()> {
        change::change(self, |_| self.state.restore(entry, &self.root))?;
        self.load()
    }

    /// Gives up what was put aside, for good.
    pub fn purge(&self, entry: &Quarantined) -> Result<()> {
        if let Some(discarded) = change::change(self, |_| self.state.purge(entry))? {
            discarded.remove();
        }
        Ok(())
    }

    /// The image of any such name.
    fn find(&self, image: &str) -> Result<Arc<Image>> {
        self.read(|index| index.resolve(image, self.default_host.as_deref()).cloned())?
    }

    fn tallied<'a>(&self, index: &'a Index) -> impl Iterator<Item = &'a Arc<Image>> {
        #[cfg(test)]
        self.looked_at
            .fetch_add(u64::try_from(index.len()).unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
        index.list()
    }

    /// Looks into the index, after a change of another process in the new one.
    fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> Result<T> {
        open::refresh(self)?;
        Ok(look(&self.index.read()))
    }
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ownership = self.ownership();
        f.debug_struct("ImageStore")
            .field("dir", &self.dir())
            .field("ownership", &ownership)
            .finish_non_exhaustive()
    }
}

/// The text of a time as records keep it.
fn local_text(time: Timestamp) -> Result<String> {
    let out_of_range = || Error::invalid(format!("no calendar date for {} s since 1970", time.seconds));
    time.to_local_text().ok_or_else(out_of_range)
}

/// Text in records ends at a NUL when it is read again.
fn no_nul(what: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{what} contains a NUL byte")));
    }
    Ok(())
}
