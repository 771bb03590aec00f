// SPDX-License-Identifier: MulanPSL-2.0
//! Making, removing and putting aside layers.
//!
//! A layer is built in the staging directory and renamed to its place, so after a power cut it is absent or whole. Its
//! short name in `l/` is made before (at worst it dangles, and is swept at the next start) and removed after the layer
//! is gone from the home, so that no layer is ever there that others cannot resolve.

use crate::driver::home::Staged;
use crate::driver::{LayerKind, NewLayer, Removed};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::{Quarantined, step};
use crate::sys::fs::{Dir, FileKind, random_hex};

use super::layout::{self, DIFF, EMPTY, LINK, LOWER, LinkName, MERGED, WORK};
use super::{Overlay, quota};

impl Overlay {
    pub(super) fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        self.home.check_writable()?;
        let id = layer.id;
        if layout::is_reserved(id.as_str()) {
            return Err(Error::invalid(format!("layer id {id} is reserved")));
        }
        let context = |error: Error| error.context(format!("create layer {id}"));
        let limits = self.projects.as_ref().filter(|projects| projects.supported());
        let size =
            quota::requested_size(layer, limits.is_some(), self.options.default_size).map_err(context)?;
        let lowers = layer.parent.map(|parent| self.lowers_on(parent)).transpose().map_err(context)?;
        if let Some(lowers) = &lowers {
            // An image layer is mounted with its own content as one more lower layer.
            let own = usize::from(layer.kind == LayerKind::ReadOnly);
            layout::check_depth(lowers.len() + own).map_err(context)?;
        }
        self.put_aside_leftover(id, layer.kind).map_err(context)?;
        if let Some(remote) = self.remote.as_ref().filter(|_| layer.kind == LayerKind::ReadOnly) {
            return self.create_shared(remote, id, lowers.as_deref()).map_err(context);
        }

        let staged = self.home.stage().map_err(context)?;
        self.shift_owner(staged.dir()).map_err(context)?;
        // Before anything is made below, so that it inherits the project.
        let limited = match (limits, size) {
            (Some(projects), Some(size)) => Some(projects.limit(staged.dir(), size).map_err(context)?),
            _ => None,
        };
        self.publish(id, staged, lowers.as_deref()).map_err(context)?;
        if let Some(limited) = limited {
            limited.keep();
        }
        Ok(())
    }

    /// Gives a staged layer its short name, what it lacks, and its place.
    pub(super) fn publish(
        &self,
        id: &LayerId,
        staged: Staged<'_>,
        lowers: Option<&[LinkName]>,
    ) -> Result<()> {
        let kept = self.kept_links.lock().get(id).cloned();
        let link = match &kept {
            Some(link) => *link,
            None => self.new_link(id)?,
        };
        let made = (|| {
            self.fill(staged.dir(), &link, lowers)?;
            step("sync link")?;
            self.home.flush(&self.links)?;
            let dir = self.align(staged.dir())?;
            staged.publish(self.home.dir(), id.as_str())?;
            if let (Some(projects), Some(dir)) = (&self.projects, dir) {
                projects.align_back(&dir);
            }
            Ok(())
        })();
        match made {
            Ok(()) => {
                self.kept_links.lock().remove(id);
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

    /// Sees to it that a directory can be moved within the home; what to align back afterwards, if anything.
    fn align(&self, dir: &Dir) -> Result<Option<Dir>> {
        match &self.projects {
            Some(projects) if projects.align(dir)? => dir.try_clone().map(Some),
            _ => Ok(None),
        }
    }

    /// Makes what a layer consists of.
    pub(super) fn fill(&self, dir: &Dir, link: &LinkName, lowers: Option<&[LinkName]>) -> Result<()> {
        step("make directories")?;
        if dir.stat(DIFF)?.is_none() {
            self.shift_owner(&dir.create_dir(DIFF, layout::DIFF_MODE)?)?;
        }
        self.home.write_new(dir, LINK, link.as_str(), layout::FILE_MODE)?;
        self.shift_owner(&dir.create_dir(WORK, layout::PRIVATE_MODE)?)?;
        self.shift_owner(&dir.create_dir(MERGED, layout::PRIVATE_MODE)?)?;
        match lowers {
            Some(lowers) => self.home.write_new(dir, LOWER, &layout::format_lower(lowers), layout::FILE_MODE),
            // Belongs to the caller even for a user namespace, as in the reference.
            None => dir.create_dir(EMPTY, layout::PRIVATE_MODE).map(drop),
        }
    }

    /// Makes a new short name for a layer.
    pub(super) fn new_link(&self, id: &LayerId) -> Result<LinkName> {
        loop {
            let text = random_hex(LinkName::LEN)?;
            let link = LinkName::parse(&text).ok_or_else(|| {
                Error::new(ErrorKind::Os(libc::EIO), format!("random name {text:?} is not hex"))
            })?;
            step("make link")?;
            match self.links.symlink(&layout::link_target(id), link.as_str()) {
                Ok(()) => return Ok(link),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Directory of an existing layer.
    pub(super) fn layer(&self, id: &LayerId) -> Result<Dir> {
        self.find_layer(id)?.ok_or_else(|| {
            Error::not_found(format!("layer {id}: no such layer in {}", self.home.dir().path().display()))
        })
    }

    /// Directory of a layer, if there is one.
    pub(super) fn find_layer(&self, id: &LayerId) -> Result<Option<Dir>> {
        if layout::is_reserved(id.as_str()) {
            return Ok(None);
        }
        match self.home.dir().open_dir(id.as_str()) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) => match &self.remote {
                Some(remote) => remote.find(id).map_err(|error| error.context(format!("open layer {id}"))),
                None if is_no_layer(error.kind()) => Ok(None),
                None => Err(error.context(format!("open layer {id}"))),
            },
        }
    }

    /// No record knows a layer of this id, so whatever lies there is somebody's data without a name.
    fn put_aside_leftover(&self, id: &LayerId, kind: LayerKind) -> Result<()> {
        let reason = "data without a record were in the way of a new layer of this id";
        match &self.remote {
            Some(remote) if kind == LayerKind::ReadOnly => self.put_aside_shared(remote, id, reason)?,
            Some(remote) => remote.unlink(id)?,
            None => {}
        }
        if self.home.dir().stat(id.as_str())?.is_some() {
            let aside = self.put_aside(id, reason)?;
            log::warn!("layer {id}: left-over data moved to {}", aside.path.display());
        }
        Ok(())
    }

    pub(super) fn remove(&self, id: &LayerId) -> Result<Removed> {
        let state = self.home.state()?;
        let context = |error: Error| error.context(format!("remove layer {id}"));
        if layout::is_reserved(id.as_str()) {
            return Ok(Removed::of(None));
        }
        let found = self.home.dir().stat(id.as_str()).map_err(context)?;
        // The name of a shared layer is a link.
        if self.remote.is_none() && found.is_some_and(|stat| stat.kind != FileKind::Dir) {
            // No layer of ours, so it is not ours to delete.
            self.put_aside(id, "it was in the place of a layer that was deleted").map_err(context)?;
            return Ok(Removed::of(None));
        }
        self.release(id).map_err(context)?;
        let link = self.find_link(id).map_err(context)?;
        let project = self.let_go(id);
        let discarded = match &self.remote {
            Some(remote) if remote.has(id).map_err(context)? => remote.discard(state, id).map_err(context)?,
            _ => state
                .discard(self.home.dir(), id.as_str())
                .inspect_err(|_| self.align_back(id))
                .map_err(context)?,
        };
        let kept = self.kept_links.lock().remove(id);
        if let Some(link) = link.or(kept) {
            self.sweep_link(&link);
        }
        let removed = Removed::of(discarded);
        Ok(match (project, self.projects.clone()) {
            (Some(project), Some(projects)) => removed.then(move || projects.give_back(project)),
            _ => removed,
        })
    }

    /// A layer of this host is about to leave the home for good: its project, if it has one of its own.
    fn let_go(&self, id: &LayerId) -> Option<u32> {
        let projects = self.projects.as_ref()?;
        let layer = self.home.dir().open_dir(id.as_str()).ok()?;
        let project = projects.about_to_go(&layer);
        self.try_align(&layer);
        project
    }

    /// What was to leave is still there.
    fn align_back(&self, id: &LayerId) {
        if let (Some(projects), Ok(layer)) = (&self.projects, self.home.dir().open_dir(id.as_str())) {
            projects.align_back(&layer);
        }
    }

    /// The same as [`Overlay::align`]; if that cannot be done, the move says so.
    fn try_align(&self, dir: &Dir) {
        if let Err(error) = self.align(dir) {
            log::warn!("{}", error.report());
        }
    }

    pub(super) fn quarantine(&self, id: &LayerId, reason: &str) -> Result<Option<Quarantined>> {
        self.home.check_writable()?;
        if layout::is_reserved(id.as_str()) || self.home.dir().stat(id.as_str())?.is_none() {
            return Ok(None);
        }
        if let Some(remote) = &self.remote {
            remote.refuse_shared(id)?;
        }
        self.put_aside(id, reason).map(Some).map_err(|error| error.context(format!("quarantine layer {id}")))
    }

    pub(super) fn put_aside(&self, id: &LayerId, reason: &str) -> Result<Quarantined> {
        let is_dir = self.home.dir().stat(id.as_str())?.is_some_and(|stat| stat.kind == FileKind::Dir);
        // Something else in its place hides no mount, and its name is found by those in `l/` alone.
        let link = if is_dir {
            self.release(id)?;
            self.try_align(&self.home.dir().open_dir(id.as_str())?);
            self.find_link(id)?
        } else {
            self.link_to(id)?
        };
        let aside = self.home.state()?.quarantine(self.home.dir(), id.as_str(), reason);
        let aside = aside.inspect_err(|_| self.align_back(id))?;
        if let Some(link) = link {
            // Children know this layer by that name: a new layer of this id takes it again.
            self.kept_links.lock().insert(id.clone(), link);
        }
        Ok(aside)
    }

    pub(super) fn restore(&self, entry: &Quarantined) -> Result<()> {
        let state = self.home.state()?;
        let id = LayerId::new(&entry.name)?;
        let context = |error: Error| error.context(format!("restore layer {id}"));
        state.restore(entry, self.home.dir()).map_err(context)?;
        self.kept_links.lock().remove(&id);
        let layer = self.layer(&id)?;
        if let Some(projects) = &self.projects {
            projects.align_back(&layer);
        }
        self.ensure_link(&id, &layer).map(drop).map_err(context)
    }

    /// Removes a short name that resolves to nothing; best effort, the next start does it again.
    pub(super) fn sweep_link(&self, link: &LinkName) {
        if let Err(error) = step("remove link").and_then(|()| self.links.remove_file(link.as_str())) {
            log::warn!("remove link {link}: {}", error.report());
        }
    }
}

/// Whether there is nothing, or a file or a link, where a layer would be.
fn is_no_layer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Os(libc::ENOTDIR | libc::ELOOP))
}
