// SPDX-License-Identifier: MulanPSL-2.0
//! Image layers that other hosts share: `RO` in the home, see [`crate::persist::SharedDir`].
//!
//! ```text
//! <home>/RO/<id>/      the layer, as it would be in <home>/<id>
//! <home>/<id>          -> <home>/RO/<id>, absolute
//! <home>/l/<26 hex>    -> ../<id>/diff, by the name that the layer's own file `link` says
//! ```
//!
//! A layer is built out of sight and stays there until its content is whole and durable; only then it is renamed into `RO`.
//! What this host adds for a layer of another one (its two links) is made in one step each and derivable, so it is not
//! flushed. Where this host has a layer of its own of that id, that one is used; it gets the other's short name as well,
//! for the layers above it in `RO` know it by that.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::driver::{SharedLayers, SharedScan};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{LayerId, is_canonical};
use crate::persist::{Discarded, Place, SharedDir, SharedEntry, StateDir, step};
use crate::sys::fs::{Dir, FileKind, random_hex};

use super::layout::{self, DIFF, LinkName};
use super::repair::{has_dir, read_link_name};
use super::{Overlay, Overlay2};

/// Random characters in the name of a link that is about to replace another.
const TEMPORARY_LEN: usize = 10;

/// Inode and time of change of a layer's directory. Taking anything out of it changes the time, also where a deletion on
/// another host goes on in place; an inode alone may soon be that of another directory.
type Look = (u64, i64, u32);

/// What the driver knows of shared layers.
#[derive(Debug)]
pub(super) struct Remote {
    dir: SharedDir,
    /// Layers being made, which nobody else sees yet.
    pending: Mutex<HashMap<LayerId, SharedEntry>>,
    /// Layers that were whole at the last look, how their directory was then, and their short names.
    known: Mutex<HashMap<LayerId, (Look, LinkName)>>,
}

impl Remote {
    fn open(overlay: &Overlay) -> Result<Remote> {
        let remote =
            Remote { dir: overlay.home.open_shared()?, pending: Mutex::default(), known: Mutex::default() };
        remote.sweep(overlay);
        Ok(remote)
    }

    /// Takes away names of shared layers that are gone; best effort.
    fn sweep(&self, overlay: &Overlay) {
        let links = overlay.home.dir().entries().unwrap_or_default();
        for name in links.iter().filter(|entry| entry.kind == FileKind::Symlink) {
            let Some(name) = name.name.to_str() else { continue };
            let swept = match self.dir.has(name) {
                Ok(true) => Ok(()),
                Ok(false) => self.dir.unlink(name),
                Err(error) => Err(error),
            };
            if let Err(error) = swept {
                log::warn!("look after the name of shared layer {name}: {}", error.report());
            }
        }
    }

    /// A shared layer, or one that is being made. Called where the home has no directory of that name.
    pub(super) fn find(&self, id: &LayerId) -> Result<Option<Dir>> {
        if let Some(entry) = self.pending.lock().get(id) {
            return entry.dir().try_clone().map(Some);
        }
        match self.dir.place(id.as_str())? {
            Place::Absent => Ok(None),
            Place::Shared => match self.dir.open_entry(id.as_str()) {
                Ok(dir) => Ok(Some(dir)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Place::Local => Err(Error::corrupt("it is not a directory")),
            Place::Foreign => Err(Error::corrupt("it is a symbolic link that leads elsewhere")),
        }
    }

    /// Whether a layer is a shared one, there or not, or one that is to be shared.
    pub(super) fn has(&self, id: &LayerId) -> Result<bool> {
        Ok(self.pending.lock().contains_key(id) || self.dir.place(id.as_str())? == Place::Shared)
    }

    /// Moves a shared layer into the trash.
    pub(super) fn discard(&self, state: &StateDir, id: &LayerId) -> Result<Option<Discarded>> {
        if let Some(entry) = self.pending.lock().remove(id) {
            drop(entry); // which removes it
            return Ok(None);
        }
        let discarded = self.dir.discard(state, id.as_str())?;
        self.dir.unlink(id.as_str())?;
        Ok(discarded)
    }

    /// Takes away this host's name of a shared layer.
    pub(super) fn unlink(&self, id: &LayerId) -> Result<()> {
        self.dir.unlink(id.as_str())
    }

    /// Layers that others use as well are not put aside by one of them.
    pub(super) fn refuse_shared(&self, id: &LayerId) -> Result<()> {
        if !self.has(id)? {
            return Ok(());
        }
        let message = format!("layer {id} is shared with other hosts: it is left where it is");
        Err(Error::new(ErrorKind::Unsupported, message))
    }
}

impl Overlay {
    /// Whether an entry of the home is the name of a shared layer that is there.
    pub(super) fn is_shared_layer(&self, kind: FileKind, id: &LayerId) -> bool {
        kind == FileKind::Symlink
            && self.remote.as_ref().is_some_and(|remote| {
                matches!(remote.dir.place(id.as_str()), Ok(Place::Shared))
                    && matches!(remote.dir.has(id.as_str()), Ok(true))
            })
    }

    /// Path of a layer's directory relative to the home, free of links.
    pub(super) fn relative_path(&self, id: &LayerId, layer: &Dir) -> PathBuf {
        let below = layer.path().strip_prefix(self.home.dir().path());
        below.map_or_else(|_| PathBuf::from(id.as_str()), PathBuf::from)
    }

    /// Whether a layer lies in the shared directory: what others may use is not repaired by one of them.
    pub(super) fn is_others(&self, layer: &Dir) -> bool {
        layer.path().starts_with(self.home.dir().path().join(layout::REMOTE))
    }

    /// Makes a layer that nobody sees until it is published.
    pub(super) fn create_shared(
        &self,
        remote: &Remote,
        id: &LayerId,
        lowers: Option<&[LinkName]>,
    ) -> Result<()> {
        let entry = remote.dir.stage()?;
        let kept = self.kept_links.lock().get(id).cloned();
        let link = match &kept {
            Some(link) => *link,
            None => self.new_link(id)?,
        };
        let made = self
            .shift_owner(entry.dir())
            .and_then(|()| self.fill(entry.dir(), &link, lowers))
            .and_then(|()| step("sync link"))
            .and_then(|()| self.home.flush(&self.links));
        match made {
            Ok(()) => {
                remote.pending.lock().insert(id.clone(), entry);
                Ok(())
            }
            Err(error) => {
                if kept.is_none() {
                    self.sweep_link(&link);
                }
                Err(error)
            }
        }
    }

    /// Shared data that no record knows, or the mere name of some, are in the way of a new layer.
    pub(super) fn put_aside_shared(&self, remote: &Remote, id: &LayerId, reason: &str) -> Result<()> {
        if remote.dir.has(id.as_str())? {
            self.release(id)?;
            let link = read_link_name(&remote.dir.open_entry(id.as_str())?)?;
            let aside = remote.dir.put_aside(self.home.state()?, id.as_str(), reason)?;
            if let Some(aside) = aside {
                log::warn!("layer {id}: left-over data moved to {}", aside.display());
            }
            if let Some(link) = link {
                self.kept_links.lock().insert(id.clone(), link);
            }
        }
        remote.dir.unlink(id.as_str())
    }

    fn publish_shared(&self, remote: &Remote, id: &LayerId) -> Result<()> {
        let entry = remote.pending.lock().remove(id);
        let entry = entry.ok_or_else(|| Error::not_found("it is not being made"))?;
        let link = read_link_name(entry.dir())?;
        let published = self
            .home
            .flush(entry.dir())
            .and_then(|()| remote.dir.publish(entry, id.as_str()))
            .and_then(|()| remote.dir.link(id.as_str()));
        match published {
            Ok(true) => {
                self.kept_links.lock().remove(id);
                Ok(())
            }
            Ok(false) => Err(Error::new(ErrorKind::AlreadyExists, "something else has its name in the home")),
            Err(error) => {
                self.sweep_unless_kept(id, link);
                Err(error)
            }
        }
    }

    fn abandon_shared(&self, remote: &Remote, id: &LayerId) {
        let Some(entry) = remote.pending.lock().remove(id) else { return };
        self.sweep_unless_kept(id, read_link_name(entry.dir()).ok().flatten());
    }

    fn sweep_unless_kept(&self, id: &LayerId, link: Option<LinkName>) {
        if let Some(link) = link
            && self.kept_links.lock().get(id) != Some(&link)
        {
            self.sweep_link(&link);
        }
    }

    fn scan_shared(&self, remote: &Remote) -> Result<SharedScan> {
        let mut scan = SharedScan::default();
        let shared = remote.dir.dir()?;
        let known = remote.known.lock().clone();
        let mut whole = HashMap::new();
        for entry in remote.dir.entries()? {
            let name = entry.name.to_string_lossy();
            let Ok(id) = LayerId::new(&name) else { continue };
            if !is_canonical(&name) || layout::is_reserved(&name) {
                let reason = "its name is not a layer id of 64 lower-case hex digits";
                scan.problems.push((name.into_owned(), reason.to_owned()));
                continue;
            }
            match self.look_at_shared(remote, &shared, &id, known.get(&id)) {
                Ok(found) => {
                    whole.insert(id.clone(), found);
                    scan.layers.insert(id);
                }
                // One bad entry says nothing of the others.
                Err(error) => scan.problems.push((id.to_string(), error.report())),
            }
        }
        *remote.known.lock() = whole;
        Ok(scan)
    }

    /// Makes sure that a shared layer is whole and has its names here.
    fn look_at_shared(
        &self,
        remote: &Remote,
        shared: &Dir,
        id: &LayerId,
        known: Option<&(Look, LinkName)>,
    ) -> Result<(Look, LinkName)> {
        let look =
            shared.stat(id.as_str())?.map_or((0, 0, 0), |stat| (stat.inode, stat.mtime, stat.mtime_nanos));
        let link = match known {
            Some((before, link)) if *before == look => *link,
            _ => {
                let layer = shared.open_dir(id.as_str())?;
                if !has_dir(&layer, DIFF)? {
                    return Err(Error::corrupt("its directory diff is missing"));
                }
                let link = read_link_name(&layer)?;
                link.ok_or_else(|| Error::corrupt("its file link is missing or holds no name"))?
            }
        };
        // Else this host has its own, which is used.
        if !remote.dir.link(id.as_str())? && remote.dir.place(id.as_str())? == Place::Foreign {
            return Err(Error::corrupt("its name in the home is a symbolic link that leads elsewhere"));
        }
        self.ensure_shared_link(id, &link)?;
        Ok((look, link))
    }

    /// Gives a layer this short name. A name that leads to nothing is replaced in one step: it is never missing.
    fn ensure_shared_link(&self, id: &LayerId, link: &LinkName) -> Result<()> {
        if self.links.stat(link.as_str())?.is_none() {
            return self.make_link(id, link);
        }
        if self.link_owner(link)?.as_ref() == Some(id) {
            return Ok(());
        }
        if let Some(other) = self.resolve(link)? {
            return Err(Error::corrupt(format!("its short name {link} leads to layer {other}")));
        }
        let temporary = format!(".tmp-{}", random_hex(TEMPORARY_LEN)?);
        self.links.symlink(&layout::link_target(id), &temporary)?;
        let renamed = self.links.rename(&temporary, &self.links, link.as_str());
        if renamed.is_err() {
            self.links.remove_file(&temporary)?;
        }
        renamed
    }

    fn forget_shared(&self, remote: &Remote, ids: &[LayerId]) -> Result<()> {
        let mut gone = HashSet::new();
        for id in ids {
            remote.known.lock().remove(id);
            if remote.dir.place(id.as_str())? == Place::Shared {
                remote.dir.unlink(id.as_str())?;
                gone.insert(id.clone());
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        for link in self.all_links()? {
            if self.link_owner(&link)?.is_some_and(|id| gone.contains(&id)) {
                self.sweep_link(&link);
            }
        }
        Ok(())
    }
}

impl Overlay2 {
    /// The same with layers that other hosts share: image layers are made in `<home>/RO`.
    pub fn open_shared(
        name: &'static str,
        home: &std::path::Path,
        options: &crate::driver::DriverOptions,
    ) -> Result<Overlay2> {
        if options.read_only {
            return Err(Error::new(ErrorKind::Unsupported, "shared layers need a store opened for writing"));
        }
        let mut driver = Overlay2::open(name, home, options)?;
        if let Some(overlay) = driver.open.get_mut().as_mut().and_then(std::sync::Arc::get_mut) {
            overlay.remote = Some(Remote::open(overlay)?);
            // The names of layers that went with their names in the home.
            overlay.sweep_links()?;
            driver.shares = true;
        }
        Ok(driver)
    }

    fn with_shared<T>(&self, action: impl FnOnce(&Overlay, &Remote) -> Result<T>) -> Result<T> {
        let overlay = self.overlay()?;
        match &overlay.remote {
            Some(remote) => action(&overlay, remote),
            None => Err(Error::new(ErrorKind::Unsupported, "the driver was opened without shared layers")),
        }
    }
}

impl SharedLayers for Overlay2 {
    fn publish(&self, id: &LayerId) -> Result<()> {
        self.with_shared(|overlay, remote| overlay.publish_shared(remote, id))
            .map_err(|error| error.context(format!("share layer {id}")))
    }

    fn abandon(&self, id: &LayerId) -> Result<()> {
        self.with_shared(|overlay, remote| {
            overlay.abandon_shared(remote, id);
            Ok(())
        })
    }

    fn scan(&self) -> Result<SharedScan> {
        self.with_shared(Overlay::scan_shared).map_err(|error| error.context("look through shared layers"))
    }

    fn has_data(&self, id: &LayerId) -> Result<bool> {
        self.with_shared(|_, remote| remote.dir.has(id.as_str()))
    }

    fn identity(&self, id: &LayerId) -> Result<Option<String>> {
        self.with_shared(|_, remote| remote.dir.identity(id.as_str()))
    }

    fn forget(&self, ids: &[LayerId]) -> Result<()> {
        self.with_shared(|overlay, remote| overlay.forget_shared(remote, ids))
            .map_err(|error| error.context("forget shared layers"))
    }
}
