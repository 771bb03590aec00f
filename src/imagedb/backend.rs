// SPDX-License-Identifier: MulanPSL-2.0
//! The files: configs by their digest, and what is known of each beside it.
//!
//! ```text
//! imagedb/content/sha256/<64 hex>              0600  the config; the name is the digest of the content
//! imagedb/metadata/sha256/<64 hex>/            0700  only of images of which something is known:
//!     parent                                   0600  `sha256:<64 hex>` without a newline
//!     lastUpdated                              0600  RFC 3339
//!     builtLocally                             0600  one byte, 1
//! imagedb/metadata/sha256/.deleting-<64 hex>/  0700  the same of an image that is being deleted; gone, or back at its
//!                                                    place, after the next start
//! ```
//!
//! Source: the `fs` backend of Docker's image store; dockerd 20.10 writes this. It knows no `.deleting-`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::{Durability, StateDir, replace_file, step, sweep_temporary};
use crate::sys::fs::{Dir, FileKind, SmallFiles, Stat};

use super::config::MAX_CONFIG;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const ALGORITHM: &str = "sha256";
const DELETING: &str = ".deleting-";
const READ_METADATA: &str = "failed to read metadata";

/// Longest value that is kept beside a config, in bytes.
const MAX_METADATA: u64 = 64 << 10;

/// By what a file is known not to have changed since it was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    inode: u64,
    size: u64,
    mtime: (i64, u32),
}

impl Signature {
    fn of(stat: &Stat) -> Option<Signature> {
        (stat.kind == FileKind::File).then_some(Signature {
            inode: stat.inode,
            size: stat.size,
            mtime: (stat.mtime, stat.mtime_nanos),
        })
    }
}

/// The directory `imagedb`. Nothing is kept in memory; each read is verified.
#[derive(Debug)]
pub struct Backend {
    /// `None` where a store that is only read has no such directory.
    content: Option<Dir>,
    metadata: Option<Dir>,
    durability: Durability,
}

impl Backend {
    /// Opens `root/imagedb` and makes what is missing.
    pub fn open(root: &Dir, durability: Durability) -> Result<Backend> {
        let make = |part: &str| -> Result<Dir> {
            let imagedb = root.ensure_dir("imagedb", DIR_MODE)?;
            let above = imagedb.ensure_dir(part, DIR_MODE)?;
            let dir = above.ensure_dir(ALGORITHM, DIR_MODE)?;
            if durability == Durability::Full {
                [&above, &imagedb, root].into_iter().try_for_each(Dir::sync)?;
            }
            Ok(dir)
        };
        let made = make("content").and_then(|content| Ok((content, make("metadata")?)));
        let (content, metadata) = made.during(|| "failed to create storage backend")?;
        Ok(Backend { content: Some(content), metadata: Some(metadata), durability })
    }

    /// Opens what is there and never writes.
    pub fn open_to_read(root: &Dir) -> Result<Backend> {
        let find = |part: &str| -> Result<Option<Dir>> {
            let opened = root.open_dir("imagedb").and_then(|dir| dir.open_dir(part)?.open_dir(ALGORITHM));
            match opened {
                Ok(dir) => Ok(Some(dir)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.context("open storage backend")),
            }
        };
        Ok(Backend { content: find("content")?, metadata: find("metadata")?, durability: Durability::None })
    }

    /// Removes what interrupted writes have left, and finishes or takes back interrupted deletions. Only for the owner.
    pub fn tidy(&self, state: &StateDir) -> Result<()> {
        let (content, metadata) = (self.content()?, self.metadata_dir()?);
        sweep_temporary(content);
        for entry in metadata.entries()? {
            let Some(name) = entry.name.to_str() else { continue };
            let Some(id) = name.strip_prefix(DELETING).and_then(|hex| Digest::from_hex(hex).ok()) else {
                continue;
            };
            // One that cannot be ended now keeps no other image from being had.
            if let Err(error) = self.end_deletion(state, &id, name) {
                log::warn!("end the deletion of image {id}: {}", error.report());
            }
        }
        Ok(())
    }

    fn end_deletion(&self, state: &StateDir, id: &Digest, name: &str) -> Result<()> {
        let metadata = self.metadata_dir()?;
        let place = id.hex();
        // Something at the place itself is newer.
        if self.content()?.stat(&place)?.is_some() && metadata.stat(&place)?.is_none() {
            step("take back deletion")?;
            metadata.rename_new(name, metadata, &place)?;
            return self.sync(metadata);
        }
        if let Some(gone) = state.discard(metadata, name)? {
            gone.remove();
        }
        Ok(())
    }

    /// Writes a config and returns its digest. Empty: an error. It is there already: it is written again.
    pub fn put(&self, config: &[u8]) -> Result<Digest> {
        if config.is_empty() {
            return Err(Error::invalid("invalid empty data"));
        }
        let id = Digest::of(config);
        replace_file(self.content()?, &id.hex(), config, FILE_MODE, self.durability)
            .during(|| "failed to write digest data")?;
        Ok(id)
    }

    /// Removes a config that was written, but must not be there.
    pub(super) fn take_back(&self, id: &Digest) -> Result<()> {
        self.content()?.remove_file(id.hex())?;
        self.sync_content()
    }

    /// What was removed does not come back.
    pub(super) fn sync_content(&self) -> Result<()> {
        self.sync(self.content()?)
    }

    /// Reads a config and verifies it. `NotFound`, `DigestMismatch`, or why it cannot be read.
    pub fn get(&self, id: &Digest) -> Result<Vec<u8>> {
        self.get_with_signature(id).map(|(config, _)| config)
    }

    /// The same, and by what it is seen to be unchanged. The signature is from before the read.
    pub fn get_with_signature(&self, id: &Digest) -> Result<(Vec<u8>, Signature)> {
        let name = id.hex();
        let read = || -> Result<(Vec<u8>, Signature)> {
            let content = self.content()?;
            let stat = content.stat(&name)?.ok_or_else(|| Error::not_found("no such file"))?;
            let limit = u64::try_from(MAX_CONFIG).unwrap_or(u64::MAX);
            let config = content.read(&name, limit)?;
            let signature = Signature::of(&stat).ok_or_else(|| Error::corrupt("it is no regular file"))?;
            Ok((config, signature))
        };
        let (config, signature) = read().during(|| format!("failed to get digest {id}"))?;
        if Digest::of(&config) != *id {
            return Err(Error::new(ErrorKind::DigestMismatch, format!("failed to verify: {id}")));
        }
        Ok((config, signature))
    }

    /// By what a config is seen to be unchanged; `None` when there is none, or something else.
    pub fn signature(&self, id: &Digest) -> Result<Option<Signature>> {
        // Asked for each image of a list: without an allocation for the name.
        Ok(self.content()?.stat(OsStr::from_bytes(&id.hex_digits()))?.as_ref().and_then(Signature::of))
    }

    /// Whether anything lies where the config of this image would be.
    pub fn is_there(&self, id: &Digest) -> Result<bool> {
        Ok(self.content()?.stat(id.hex())?.is_some())
    }

    /// The names that are digests, in no order. Others are skipped.
    pub fn ids(&self) -> Result<Vec<Digest>> {
        let Some(content) = &self.content else { return Ok(Vec::new()) };
        let entries = content.entries().during(|| "list images")?;
        Ok(entries.iter().filter_map(|entry| digest_of(entry.name.to_str()?)).collect())
    }

    /// Calls `each` for all names that are digests; its error ends the walk and is returned.
    pub fn walk(&self, each: impl FnMut(Digest) -> Result<()>) -> Result<()> {
        self.ids()?.into_iter().try_for_each(each)
    }

    /// Keeps a value beside a config that is there and right.
    pub fn set_metadata(&self, id: &Digest, key: &str, value: &[u8]) -> Result<()> {
        check_key(key)?;
        self.get(id)?;
        let doing = || format!("write {key} of image {id}");
        let metadata = self.metadata_dir()?;
        let place = id.hex();
        let dir = match metadata.open_dir(&place) {
            Ok(dir) => dir,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                step("make metadata directory").during(doing)?;
                let dir = metadata.ensure_dir(&place, DIR_MODE).during(doing)?;
                step("sync metadata").during(doing)?;
                self.sync(metadata).during(doing)?;
                dir
            }
            Err(error) => return Err(error.context(doing())),
        };
        replace_file(&dir, key, value, FILE_MODE, self.durability).during(doing)
    }

    /// A value beside a config that is there and right. There is none: `NotFound`.
    pub fn metadata(&self, id: &Digest, key: &str) -> Result<Vec<u8>> {
        check_key(key)?;
        self.get(id)?;
        self.metadata_of(id, key)
    }

    /// The same without a look at the config.
    pub(super) fn metadata_of(&self, id: &Digest, key: &str) -> Result<Vec<u8>> {
        let read = || self.metadata_dir()?.open_dir(id.hex())?.read(key, MAX_METADATA);
        read().during(|| READ_METADATA)
    }

    /// The same as fast as it goes, for very many: `None` where a closer look is needed, an inner `None` where there is no
    /// such value. Removes what interrupted writes have left, if `sweep`.
    pub(super) fn quick_metadata(
        &self,
        files: &mut SmallFiles,
        id: &Digest,
        key: &str,
        sweep: bool,
    ) -> Option<Option<Vec<u8>>> {
        let metadata = self.metadata.as_ref()?;
        let mut few = files.open_dir(metadata, &id.hex())?;
        if sweep
            && few.names().iter().any(|name| name.starts_with('.'))
            && let Ok(dir) = metadata.open_dir(id.hex())
        {
            sweep_temporary(&dir);
        }
        if !few.names().iter().any(|name| name == key) {
            return Some(None);
        }
        few.read(key).map(|value| Some(value.to_vec()))
    }

    /// Removes a value; there is none: fine.
    pub fn delete_metadata(&self, id: &Digest, key: &str) -> Result<()> {
        check_key(key)?;
        let doing = || format!("remove {key} of image {id}");
        let dir = match self.metadata_dir().during(doing)?.open_dir(id.hex()) {
            Ok(dir) => dir,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.context(doing())),
        };
        step("remove metadata").during(doing)?;
        if dir.remove_file(key).during(doing)? {
            step("sync metadata").during(doing)?;
            self.sync(&dir).during(doing)?;
        }
        Ok(())
    }

    /// Images of which something is known beside their config.
    pub fn ids_with_metadata(&self) -> Result<Vec<Digest>> {
        let Some(metadata) = &self.metadata else { return Ok(Vec::new()) };
        let entries = metadata.entries().during(|| "list metadata")?;
        Ok(entries.iter().filter_map(|entry| digest_of(entry.name.to_str()?)).collect())
    }

    /// Removes a config, right or damaged, and what is known beside it. Nothing is there: `NotFound`. At every instant the
    /// next start finds the image with all that is known of it, or nothing. After an error it may be gone, or gone until a
    /// power cut: see [`Backend::is_there`].
    pub fn delete(&self, state: &StateDir, id: &Digest) -> Result<()> {
        self.delete_files(state, id).during(|| format!("delete image {id}"))
    }

    fn delete_files(&self, state: &StateDir, id: &Digest) -> Result<()> {
        let (content, metadata) = (self.content()?, self.metadata_dir()?);
        let place = id.hex();
        let kind =
            content.stat(&place)?.map(|stat| stat.kind).ok_or_else(|| Error::not_found("no such file"))?;
        let mark = format!("{DELETING}{place}");
        let marked = metadata.stat(&place)?.is_some();
        if marked {
            // Left by an interrupted deletion that nobody has tidied up.
            if let Some(gone) = state.discard(metadata, &mark)? {
                gone.remove();
            }
            step("mark deletion")?;
            metadata.rename_new(&place, metadata, &mark)?;
        }
        let removed = (|| {
            if marked {
                step("sync mark")?;
                self.sync(metadata)?;
            }
            step("remove config")?;
            match kind {
                FileKind::File | FileKind::Symlink => content.remove_file(&place).map(drop),
                FileKind::Dir | FileKind::Other => {
                    state.discard(content, &place).map(|gone| gone.into_iter().for_each(|gone| gone.remove()))
                }
            }
        })();
        if let Err(error) = removed {
            if marked && let Err(left) = metadata.rename_new(&mark, metadata, &place) {
                log::warn!("take back the deletion of image {id}: {}", left.report());
            }
            return Err(error);
        }
        // Its layer must not go before this is certain.
        step("sync content")?;
        self.sync(content)?;
        // What fails now is finished by the next start.
        if marked {
            match state.discard(metadata, &mark) {
                Ok(gone) => gone.into_iter().for_each(|gone| gone.remove()),
                Err(error) => log::warn!("image {id} is deleted, its metadata are not: {}", error.report()),
            }
        }
        Ok(())
    }

    /// Removes what was known of an image that is no longer there, so that a new one does not inherit it.
    pub(super) fn discard_stale_metadata(&self, state: &StateDir, id: &Digest) -> Result<()> {
        let metadata = self.metadata_dir()?;
        let place = id.hex();
        // Also those of a deletion that did not end: the next start would give them back.
        for name in [format!("{DELETING}{place}"), place] {
            if metadata.stat(&name)?.is_some()
                && let Some(gone) = state.discard(metadata, &name)?
            {
                gone.remove();
            }
        }
        Ok(())
    }

    fn content(&self) -> Result<&Dir> {
        self.content.as_ref().ok_or_else(|| Error::not_found("there is no directory imagedb/content/sha256"))
    }

    fn metadata_dir(&self) -> Result<&Dir> {
        self.metadata
            .as_ref()
            .ok_or_else(|| Error::not_found("there is no directory imagedb/metadata/sha256"))
    }

    fn sync(&self, dir: &Dir) -> Result<()> {
        match self.durability {
            Durability::Full => dir.sync(),
            Durability::None => Ok(()),
        }
    }
}

fn digest_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name).ok()
}

/// A key is one path component and no temporary name.
fn check_key(key: &str) -> Result<()> {
    let why = if key.is_empty() {
        "it is empty"
    } else if key.len() > 128 {
        "it is longer than 128 bytes"
    } else if key.starts_with('.') {
        "it starts with a dot"
    } else if key.contains(['/', '\0']) {
        "it contains a slash or a NUL byte"
    } else {
        return Ok(());
    };
    let shown: String = key.chars().take(80).collect();
    Err(Error::invalid(format!("metadata key {shown:?} is not valid: {why}")))
}
