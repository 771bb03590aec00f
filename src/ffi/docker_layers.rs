// SPDX-License-Identifier: MulanPSL-2.0
//! Where the layers of Docker's images come from: the caller's callbacks, the storage of this process, a daemon's records.

use std::ffi::{CString, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::arg;
use crate::ffi::global::STORAGE;
use crate::ffi::types::{
    CDockerImageLayers, CDockerRemovedLayers, DOCKER_IMAGE_LAYERS_CALLBACKS, DOCKER_IMAGE_LAYERS_LAYERDB,
    DOCKER_IMAGE_LAYERS_NONE, DOCKER_IMAGE_LAYERS_STORAGE,
};
use crate::imagedb::{DockerLayers, Layers, NoLayers, RemovedLayer};

/// The layers that a caller asks for.
///
/// # Safety
/// `layers` is NULL or valid; what it points to may be used until the store is closed, from any thread.
pub(super) unsafe fn layers_of(
    root: &Path,
    kind: c_int,
    layers: *const CDockerImageLayers,
) -> Result<Arc<dyn Layers>> {
    match kind {
        DOCKER_IMAGE_LAYERS_CALLBACKS => {
            // SAFETY: the caller's promise.
            let layers = unsafe { arg::required(layers, "layers") }?;
            if layers.size < size_of::<CDockerImageLayers>() {
                return Err(Error::invalid("layers->size is not the size of the struct"));
            }
            let missing = |name: &str| Error::invalid(format!("layers->{name} is NULL"));
            layers.retain.ok_or_else(|| missing("retain"))?;
            layers.release.ok_or_else(|| missing("release"))?;
            Ok(Arc::new(Callbacks(*layers)))
        }
        DOCKER_IMAGE_LAYERS_STORAGE => Ok(Arc::new(OfStorage)),
        DOCKER_IMAGE_LAYERS_LAYERDB => Ok(Arc::new(DockerLayers::open(root)?)),
        DOCKER_IMAGE_LAYERS_NONE => Ok(Arc::new(NoLayers)),
        other => Err(Error::invalid(format!("options->layers is {other}: not one of DOCKER_IMAGE_LAYERS_*"))),
    }
}

/// The caller's layers.
struct Callbacks(CDockerImageLayers);

// SAFETY: the promise of whoever gave them: functions and context may be used from any thread.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    fn context(&self) -> *mut c_void {
        self.0.context
    }
}

/// The answer of a callback.
fn answer(name: &str, code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // A function that says -1 says nothing.
    let code = if code < 0 { libc::EIO } else { code };
    let text = std::io::Error::from_raw_os_error(code);
    Err(Error::new(ErrorKind::from_errno(code), format!("layers->{name}: {text}")))
}

fn text(chain_id: &Digest) -> CString {
    CString::new(chain_id.to_string()).unwrap_or_default()
}

impl Layers for Callbacks {
    fn retain(&self, chain_id: &Digest) -> Result<()> {
        let chain_id = text(chain_id);
        let Some(retain) = self.0.retain else { return Err(Error::invalid("layers->retain is NULL")) };
        // SAFETY: the caller's function, its context, and a string that lives during the call.
        answer("retain", unsafe { retain(self.context(), chain_id.as_ptr()) })
    }

    fn release(&self, chain_id: &Digest) -> Result<Vec<RemovedLayer>> {
        let chain_id = text(chain_id);
        let Some(release) = self.0.release else { return Err(Error::invalid("layers->release is NULL")) };
        let mut removed: Vec<RemovedLayer> = Vec::new();
        let handle: *mut CDockerRemovedLayers = (&raw mut removed).cast();
        // SAFETY: as above; the handle is used during the call only, and by nobody else.
        let code = unsafe { release(self.context(), chain_id.as_ptr(), handle) };
        answer("release", code).map(|()| removed)
    }

    fn forget(&self, chain_id: &Digest) {
        let chain_id = text(chain_id);
        if let Some(forget) = self.0.forget {
            // SAFETY: as above.
            unsafe { forget(self.context(), chain_id.as_ptr()) };
        }
    }
}

/// The list behind the handle that a release callback got.
///
/// # Safety
/// `removed` is NULL or the handle that a release callback has, which has not returned yet.
pub(super) unsafe fn removed_layers<'a>(
    removed: *mut CDockerRemovedLayers,
) -> Result<&'a mut Vec<RemovedLayer>> {
    // SAFETY: it was made of such a list; that it lives is the caller's promise.
    unsafe { removed.cast::<Vec<RemovedLayer>>().as_mut() }.ok_or_else(|| Error::invalid("removed is NULL"))
}

/// The layers of the storage of this process, whenever it is open.
struct OfStorage;

impl Layers for OfStorage {
    fn retain(&self, chain_id: &Digest) -> Result<()> {
        STORAGE.get()?.write(|storage| storage.retain(chain_id))
    }

    fn release(&self, chain_id: &Digest) -> Result<Vec<RemovedLayer>> {
        STORAGE.get()?.write(|storage| Layers::release(storage, chain_id))
    }

    fn forget(&self, chain_id: &Digest) {
        // Closed meanwhile: so are its holds.
        if let Ok(storage) = STORAGE.get() {
            let forgotten = storage.write(|storage| {
                storage.forget(chain_id);
                Ok(())
            });
            if let Err(error) = forgotten {
                log::warn!("drop the hold on layer {chain_id}: {}", error.report());
            }
        }
    }
}
