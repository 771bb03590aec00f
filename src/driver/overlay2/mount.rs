// SPDX-License-Identifier: MulanPSL-2.0
//! Mounting and unmounting layers.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::driver::{LayerKind, MountOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::sys::fs::{Dir, filesystem_name};
use crate::sys::mount::{self, MountMethod};

use super::Overlay;
use super::layout::{DIFF, EMPTY, LinkName, MERGED, PRIVATE_MODE, WORK};
use super::repair::hides_all_below;

/// Most mounts stacked on one directory that are taken away at once.
const MAX_STACKED: usize = 64;

impl Overlay {
    pub(super) fn mount_path(&self, id: &LayerId) -> PathBuf {
        self.home.dir().path().join(id).join(MERGED)
    }

    pub(super) fn mount(&self, id: &LayerId, kind: LayerKind, options: &MountOptions<'_>) -> Result<PathBuf> {
        self.home.check_writable()?;
        let layer = self.layer(id)?;
        let context = |error: Error| error.context(format!("mount layer {id}"));
        let covered = covered(&layer).map_err(context)?;
        if covered == Some(true) {
            // Whatever lies there is asked what it is, not a table of what was once mounted.
            let root = layer.open_dir(MERGED).map_err(context)?;
            if filesystem_name(root.as_fd()).map_err(context)? == Some("overlayfs") {
                return Ok(self.mount_path(id));
            }
            let what = format!("something else is mounted on {}", self.mount_path(id).display());
            return Err(context(Error::new(ErrorKind::InUse, what)));
        }
        let _room = match kind {
            LayerKind::ReadWrite => self.projects.as_ref().and_then(|projects| projects.make_room(&layer)),
            LayerKind::ReadOnly => None,
        };
        self.ensure_own_dir(&layer, WORK).map_err(context)?;
        if covered.is_none() {
            self.ensure_own_dir(&layer, MERGED).map_err(context)?;
        }
        let target = self.relative_path(id, &layer).join(MERGED);
        let overlay = self.overlay_of(id, &layer, kind, options).map_err(context)?;
        mount::mount_overlay(&overlay, &target, self.method()).map_err(context)?;
        Ok(self.mount_path(id))
    }

    /// The kernel is asked what it can do once, not with every mount.
    fn method(&self) -> MountMethod {
        *self.method.get_or_init(|| match mount::takes_many_lowers() {
            true => MountMethod::OneByOne,
            false => MountMethod::Auto,
        })
    }

    /// What to mount: a container's layer is the upper directory; an image layer lies read-only on what is below it,
    /// so that looking into it leaves nothing on it.
    pub(super) fn overlay_of(
        &self,
        id: &LayerId,
        layer: &Dir,
        kind: LayerKind,
        options: &MountOptions<'_>,
    ) -> Result<mount::Overlay<'_>> {
        let own = self.relative_path(id, layer);
        let mut lowers: Vec<PathBuf> = match self.resolved_lowers_on(layer, options.below)? {
            Some(lowers) => lowers.iter().map(LinkName::path).collect(),
            None => {
                // Only a base layer has `empty`. Making it here would turn a layer that has lost its `lower` into one.
                if layer.stat(EMPTY)?.is_none() {
                    return Err(Error::corrupt("it has neither lower layers nor a directory empty"));
                }
                vec![own.join(EMPTY)]
            }
        };
        let (mut upper, mut work) = (None, None);
        match kind {
            LayerKind::ReadWrite => {
                upper = Some(own.join(DIFF));
                work = Some(own.join(WORK));
            }
            // With `empty` below, a base layer has the two lower directories that the kernel asks for.
            LayerKind::ReadOnly => {
                if hides_all_below(layer)? {
                    layer.ensure_dir(EMPTY, PRIVATE_MODE)?;
                    lowers = vec![own.join(EMPTY)];
                }
                lowers.insert(0, own.join(DIFF));
            }
        }
        Ok(mount::Overlay {
            home: self.home.dir(),
            lowers,
            upper,
            work,
            options: match options.options {
                [] => self.options.mount_options.iter().cloned().collect(),
                of_the_caller => of_the_caller.to_vec(),
            },
            label: options.label.filter(|label| !label.is_empty()).map(str::to_owned),
        })
    }

    pub(super) fn is_mounted(&self, id: &LayerId) -> Result<bool> {
        match self.find_layer(id)? {
            Some(layer) => is_covered(&layer),
            None => Ok(false),
        }
    }

    pub(super) fn unmount(&self, id: &LayerId) -> Result<()> {
        self.home.check_writable()?;
        let Some(layer) = self.find_layer(id)? else { return Ok(()) };
        let path = self.mount_path(id);
        for _ in 0..MAX_STACKED {
            if !is_covered(&layer)? {
                break;
            }
            mount::unmount(&path).map_err(|error| error.context(format!("unmount layer {id}")))?;
        }
        Ok(())
    }

    /// Unmounts a layer that is about to be moved away; fails with `InUse` while it is mounted.
    pub(super) fn release(&self, id: &LayerId) -> Result<()> {
        self.unmount(id)?;
        if self.is_mounted(id)? {
            let what = format!("{} is still mounted", self.mount_path(id).display());
            return Err(Error::new(ErrorKind::InUse, what));
        }
        Ok(())
    }
}

/// Whether something is mounted on a layer's mount point; `None` when that is missing.
fn covered(layer: &Dir) -> Result<Option<bool>> {
    match mount::is_mount_point(layer.as_fd(), Path::new(MERGED)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

fn is_covered(layer: &Dir) -> Result<bool> {
    Ok(covered(layer)? == Some(true))
}
