// SPDX-License-Identifier: MulanPSL-2.0
//! What a layer changes of the layers below it, or of another layer.
//!
//! Of its own parent, that is what lies in the layer's directory. Where only the kernel understands what lies there (renamed
//! directories, files with metadata only), and for any other two layers, what the kernel shows of both is compared; the
//! overlays for that are mounted nowhere.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::archive::DiffBase;
use crate::driver::{LayerKind, MountOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::sys::fs::Dir;
use crate::sys::mount;

use super::Overlay;
use super::layout::DIFF;

impl Overlay {
    /// `compare` is called again after it has answered `Unsupported`, which it does before it has done anything.
    pub(super) fn compare<T>(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        mut compare: impl FnMut(BorrowedFd<'_>, &DiffBase<'_>) -> Result<T>,
    ) -> Result<T> {
        self.compare_layers(id, parent, &mut compare)
            .map_err(|error| error.context(format!("compare layer {id}")))
    }

    fn compare_layers<T>(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        compare: &mut impl FnMut(BorrowedFd<'_>, &DiffBase<'_>) -> Result<T>,
    ) -> Result<T> {
        let layer = self.layer(id)?;
        let mut lowers = Vec::new();
        for lower in self.resolved_lowers(&layer)?.unwrap_or_default() {
            let missing = || Error::corrupt(format!("lower layer {lower} is missing"));
            lowers.push(self.resolve(&lower)?.ok_or_else(missing)?);
        }
        if lowers.first() == parent {
            let upper = layer.open_dir(DIFF)?;
            let lowers: Vec<Dir> = lowers.iter().map(|lower| self.diff(lower)).collect::<Result<_>>()?;
            let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(Dir::as_fd).collect();
            match compare(upper.as_fd(), &DiffBase::Lowers(&lowers)) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    log::debug!("layer {id}: {}; comparing what the kernel shows", error.report());
                }
                compared => return compared,
            }
        }
        let tree = self.view(id)?;
        let below = parent.map(|parent| self.view(parent)).transpose()?;
        compare(tree.as_fd(), &DiffBase::Tree(below.as_ref().map(AsFd::as_fd)))
    }

    /// What the kernel shows of a layer with all that it stands on.
    fn view(&self, id: &LayerId) -> Result<OwnedFd> {
        let layer = self.layer(id)?;
        let overlay = self.overlay_of(id, &layer, LayerKind::ReadOnly, &MountOptions::default());
        mount::view_overlay(&overlay.map_err(|error| error.context(format!("layer {id}")))?)
    }
}
