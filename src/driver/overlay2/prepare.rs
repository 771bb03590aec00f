// SPDX-License-Identifier: MulanPSL-2.0
//! New content for a layer that is damaged: unpacked in the staging directory, then put in the place of the old.
//!
//! The old data go to quarantine as a whole, and the new ones take over their short name, which is what layers above know
//! them by. A crash in between leaves the layer without data, and both in places where they are found: making the
//! layer again heals it.

use std::io::{Read, Write};
use std::sync::Arc;

use crate::driver::home::Parked;
use crate::driver::{Applied, Limits, NewLayer, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::Quarantined;

use super::Overlay;
use super::layout::{self, DIFF, LinkName};

/// Content unpacked aside.
struct Aside {
    overlay: Arc<Overlay>,
    id: LayerId,
    parent: Option<LayerId>,
    /// `None` once it is installed.
    parked: Option<Parked>,
}

pub(super) fn prepare(
    overlay: Arc<Overlay>,
    layer: &NewLayer<'_>,
    source: &mut dyn Read,
    tar_split: &mut (dyn Write + Send),
    limits: &Limits,
) -> Result<(Applied, Box<dyn Prepared>)> {
    overlay.home.check_writable()?;
    let id = layer.id;
    if layout::is_reserved(id.as_str()) {
        return Err(Error::invalid(format!("layer id {id} is reserved")));
    }
    if let Some(remote) = &overlay.remote
        && let Err(error) = remote.refuse_shared(id)
    {
        return Err(error.with_kind(ErrorKind::Unsupported));
    }
    let context = |error: Error| error.context(format!("unpack layer {id} aside"));
    let (applied, parked) = (|| {
        let staged = overlay.home.stage()?;
        overlay.shift_owner(staged.dir())?;
        let diff = staged.dir().create_dir(DIFF, layout::DIFF_MODE)?;
        overlay.shift_owner(&diff)?;
        let applied = overlay.unpack(&diff, source, tar_split, limits)?;
        Ok((applied, staged.park()?))
    })()
    .map_err(context)?;
    let aside = Aside { overlay, id: id.clone(), parent: layer.parent.cloned(), parked: Some(parked) };
    Ok((applied, Box::new(aside)))
}

impl Prepared for Aside {
    fn install(mut self: Box<Self>, reason: &str) -> Result<Option<Quarantined>> {
        let context = |error: Error| error.context(format!("replace the data of layer {}", self.id));
        let Some(parked) = self.parked.take() else {
            return Err(context(Error::new(ErrorKind::NotReady, "they were installed before")));
        };
        self.overlay.install(&self.id, self.parent.as_ref(), parked, reason).map_err(context)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Taken up again, and dropped unpublished, it is removed.
        if let Some(Err(error)) = self.parked.take().map(|parked| self.overlay.home.resume(parked).map(drop))
        {
            log::warn!("remove what was unpacked for layer {}: {}", self.id, error.report());
        }
    }
}

impl Overlay {
    fn install(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        parked: Parked,
        reason: &str,
    ) -> Result<Option<Quarantined>> {
        let staged = self.home.resume(parked)?;
        let lowers: Option<Vec<LinkName>> = parent.map(|parent| self.lowers_on(parent)).transpose()?;
        if let Some(lowers) = &lowers {
            layout::check_depth(lowers.len() + 1)?;
        }
        // Content first: what takes the place of something has to outlast a power cut.
        self.home.flush_tree(staged.dir())?;
        let old = match self.home.dir().stat(id.as_str())? {
            Some(_) => Some(self.put_aside(id, reason)?),
            None => None,
        };
        match self.publish(id, staged, lowers.as_deref()) {
            Ok(()) => Ok(old),
            Err(error) => {
                if let Some(old) = old
                    && let Err(also) = self.restore(&old)
                {
                    log::error!("layer {id}: put its data back: {}", also.report());
                }
                Err(error)
            }
        }
    }
}
