// SPDX-License-Identifier: MulanPSL-2.0
//! `isula_storage_layer_export`, `_diff`, `_changes`, `_diff_size`: layers as archives again.

use std::ffi::{c_char, c_int};
use std::io::{BufWriter, Write};

use crate::error::{During, Result};
use crate::ffi::global::LAYERS;
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::stream::CallerSink;
use crate::ffi::types::CIoWriteWrapper;
use crate::ffi::{arg, cmem};
use crate::layer::LayerStore;
use crate::storage::{Change, ChangeKind};

use cmem::{CArray, CBox, Members, clear, free_array, release};

/// There was nothing of this path.
pub const ISULA_STORAGE_CHANGE_ADDED: c_int = 1;
/// It differs, or something below it does.
pub const ISULA_STORAGE_CHANGE_MODIFIED: c_int = 2;
/// It is gone, with all below it.
pub const ISULA_STORAGE_CHANGE_DELETED: c_int = 3;

/// What goes to the caller's function at once.
const BUFFER: usize = 128 << 10;

/// A path that a layer changes.
#[repr(C)]
#[derive(Debug)]
pub struct CLayerChange {
    /// Bytes of the path below the root, without a slash in front; they need not be UTF-8.
    pub path: *mut c_char,
    /// ISULA_STORAGE_CHANGE_ADDED, ISULA_STORAGE_CHANGE_MODIFIED or ISULA_STORAGE_CHANGE_DELETED.
    pub kind: c_int,
}

/// Paths that a layer changes; belongs to the caller.
#[repr(C)]
#[derive(Debug)]
pub struct CLayerChanges {
    /// The changes, one behind the other, a directory before what is in it. Never NULL.
    pub changes: *mut CLayerChange,
    /// Their number.
    pub changes_len: usize,
}

// SAFETY: a pointer and a number: all zero bytes are valid and own nothing.
unsafe impl Members for CLayerChange {
    unsafe fn free_members(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { release(self.path) }
    }
}

// SAFETY: as above.
unsafe impl Members for CLayerChanges {
    unsafe fn free_members(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { free_array(self.changes, self.changes_len) }
    }
}

/// Writes the archive that an image layer was made from, uncompressed, byte for byte. It is verified while it is written:
/// each file against its checksum, and the whole against the digest that the layer is known by.
///
/// @param id borrowed; an id or name
/// @param writer borrowed; its write_func is called in this thread until it has taken everything, and may call the
/// library; close_func is not called; context may be anything
/// @return 0: all was written, and it is right; -1 with errno EINVAL (NULL, no write_func), EILSEQ, ENOENT (no such
/// layer), EUCLEAN (the layer is damaged, or was made by iSulad: it has no complete tar-split stream), EBADMSG (all was
/// written, but it has another digest), EIO (write_func failed without errno), ENODEV (not open), or what write_func or the
/// system said. What was written then is not to be used
///
/// # Safety
/// `id` must be NULL or a string, `writer` NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_layer_export(
    id: *const c_char,
    writer: *const CIoWriteWrapper,
) -> c_int {
    guard("isula_storage_layer_export", || {
        // SAFETY: the caller's promise.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let sink = unsafe { CallerSink::new(writer, "writer") }?;
        with(|store| write_all(sink, |out| store.export(id, out).map(drop)))
    })
}

/// Writes a new layer archive, uncompressed, of what a layer changes of another: with whiteouts for what it deletes, as
/// layer_store_create takes it. The same layer gives the same bytes each time, which are not those that an image layer
/// was made from: for those there is isula_storage_layer_export.
///
/// @param id borrowed; an id or name
/// @param parent borrowed; an id or name; NULL: the layer that it stands on
/// @param writer borrowed; as for isula_storage_layer_export
/// @return 0: all was written; -1 with errno EINVAL (NULL, no write_func), EILSEQ, ENOENT (no such layer), EBUSY (the layer
/// changes meanwhile), EBADMSG (it has something that no archive can hold), EOPNOTSUPP (these two cannot be compared
/// here), EIO (write_func failed without errno), ENODEV (not open), or what write_func or the system said. What was written
/// then is not to be used
///
/// # Safety
/// `id` and `parent` must be NULL or strings, `writer` NULL or valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_layer_diff(
    id: *const c_char,
    parent: *const c_char,
    writer: *const CIoWriteWrapper,
) -> c_int {
    guard("isula_storage_layer_diff", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let parent = unsafe { arg::optional_text(parent, "parent") }?;
        // SAFETY: as above.
        let sink = unsafe { CallerSink::new(writer, "writer") }?;
        with(|store| write_all(sink, |out| store.diff(id, parent, out).map(drop)))
    })
}

/// Gives the paths that a layer changes of another. What comes or goes meanwhile is given or not.
///
/// @param id borrowed; an id or name
/// @param parent borrowed; an id or name; NULL: the layer that it stands on
/// @param changes out; its members belong to the caller: isula_storage_clear_layer_changes
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such layer), EOPNOTSUPP (these two cannot be compared
/// here), ENODEV (not open), ENOMEM, or what the system said
///
/// # Safety
/// `id` and `parent` must be NULL or strings, `changes` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_layer_changes(
    id: *const c_char,
    parent: *const c_char,
    changes: *mut CLayerChanges,
) -> c_int {
    guard("isula_storage_layer_changes", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let parent = unsafe { arg::optional_text(parent, "parent") }?;
        // SAFETY: as above.
        let out = unsafe { arg::out(changes, "changes") }?;
        let found = LAYERS.get()?.read(|store| store.changes(id, parent))?;
        let mut list = CBox::<CLayerChanges>::zeroed()?;
        (list.changes, list.changes_len) = CArray::collect(&found, change)?.into_raw();
        out.set(list.into_value());
        Ok(0)
    })
}

fn change(change: &Change) -> Result<CBox<CLayerChange>> {
    let mut out = CBox::<CLayerChange>::zeroed()?;
    out.path = cmem::bytes(&change.path)?;
    out.kind = match change.kind {
        ChangeKind::Added => ISULA_STORAGE_CHANGE_ADDED,
        ChangeKind::Modified => ISULA_STORAGE_CHANGE_MODIFIED,
        ChangeKind::Deleted => ISULA_STORAGE_CHANGE_DELETED,
    };
    Ok(out)
}

/// Gives the sum of the sizes of the files that isula_storage_layer_diff would write.
///
/// @param id borrowed; an id or name
/// @param parent borrowed; an id or name; NULL: the layer that it stands on
/// @param bytes out; in bytes
/// @return 0, or -1 with errno as isula_storage_layer_changes
///
/// # Safety
/// `id` and `parent` must be NULL or strings, `bytes` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_layer_diff_size(
    id: *const c_char,
    parent: *const c_char,
    bytes: *mut i64,
) -> c_int {
    guard("isula_storage_layer_diff_size", || {
        // SAFETY: the caller's promise, here and for what follows.
        let id = unsafe { arg::text(id, "id") }?;
        // SAFETY: as above.
        let parent = unsafe { arg::optional_text(parent, "parent") }?;
        // SAFETY: as above.
        let bytes = unsafe { arg::out(bytes, "bytes") }?;
        let size = LAYERS.get()?.read(|store| store.diff_size(id, parent))?;
        bytes.set(i64::try_from(size.0).unwrap_or(i64::MAX));
        Ok(0)
    })
}

/// Frees the changes in a list and empties it; the struct stays.
///
/// @param changes borrowed; may be NULL
///
/// # Safety
/// The members of `changes` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_clear_layer_changes(changes: *mut CLayerChanges) {
    // SAFETY: the caller's promise.
    guard_void("isula_storage_clear_layer_changes", || unsafe { clear(changes) });
}

fn with(body: impl FnOnce(&LayerStore) -> Result<()>) -> Result<c_int> {
    LAYERS.get()?.read(body).map(|()| 0)
}

/// Lets `body` write to a caller's function in large pieces. After an error nothing more is handed over.
fn write_all(sink: CallerSink, body: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, sink);
    let written = body(&mut out).and_then(|()| out.flush().during(|| "write the archive"));
    // What is left in the buffer would be written when it is dropped.
    drop(out.into_parts());
    written
}
