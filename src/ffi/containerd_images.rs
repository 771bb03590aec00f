// SPDX-License-Identifier: MulanPSL-2.0
//! `containerd_images_*`: names of images and what they point to, in a bolt file; several files in one process.
//!
//! Handles are numbers that are looked up in a table, never addresses: one that has ended is an error, whatever is done
//! with it. Numbers are not used twice.
//!
//! Source: containerd 1ea809dc2, package `images`.

use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ffi::arg;
use crate::ffi::arg::Out;
use crate::ffi::cmem::{self, CBox, clear};
use crate::ffi::global::Held;
use crate::ffi::guard::{guard, guard_void, last_failure};
use crate::ffi::pack::{Packer, pack};
use crate::ffi::types::{
    CContainerdDescriptor, CContainerdImage, CContainerdImageList, CContainerdImagesOptions,
};
use crate::metadata::{Access, Image, ImageError, ImageFile, ImageTransaction, Options, Target, shown};
use crate::storage::Durability;

/// Instead of a name's length: it ends with a NUL.
pub const CONTAINERD_IMAGES_TEXT: isize = -1;
/// There is no image of this name, or the file was not initialised.
pub const CONTAINERD_IMAGES_NOT_FOUND: c_int = 1;
/// There is an image of this name already.
pub const CONTAINERD_IMAGES_EXISTS: c_int = 2;
/// Something else: errno says what kind.
pub const CONTAINERD_IMAGES_OTHER: c_int = 3;

/// An open file of images; not to be looked into.
#[derive(Debug)]
pub struct CContainerdImages(());

/// A transaction of an open file; not to be looked into.
#[derive(Debug)]
pub struct CContainerdTransaction(());

/// For all handles of this family, so that one of another kind is found out.
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(1);

pub(super) fn new_handle() -> usize {
    NEXT_HANDLE.fetch_add(1, Ordering::Relaxed)
}

/// A transaction, for as long as it lasts. Its lock is held while it is used: by one thread at a time.
#[derive(Debug)]
struct Ongoing {
    file: usize,
    held: Arc<Held<ImageFile>>,
    transaction: Mutex<Option<ImageTransaction>>,
}

/// Taken alone and for a moment.
static OPEN: Lazy<Mutex<Tables>> = Lazy::new(Mutex::default);

#[derive(Debug, Default)]
struct Tables {
    files: HashMap<usize, Arc<Held<ImageFile>>>,
    transactions: HashMap<usize, Arc<Ongoing>>,
}

fn not_open() -> Error {
    Error::invalid("images is not open: not of containerd_images_open, or closed")
}

fn has_ended() -> Error {
    Error::invalid("transaction has ended: it was committed or rolled back, or its file was closed")
}

fn file(images: *const CContainerdImages) -> Result<(usize, Arc<Held<ImageFile>>)> {
    if images.is_null() {
        return Err(Error::invalid("images is NULL"));
    }
    let handle = images.addr();
    let file = OPEN.lock().files.get(&handle).cloned();
    file.map(|file| (handle, file)).ok_or_else(not_open)
}

/// The transaction, which stays in the table or, where it ends, leaves it.
fn transaction(transaction: *const CContainerdTransaction, ends: bool) -> Result<Arc<Ongoing>> {
    if transaction.is_null() {
        return Err(Error::invalid("transaction is NULL"));
    }
    let handle = transaction.addr();
    let mut tables = OPEN.lock();
    let found =
        if ends { tables.transactions.remove(&handle) } else { tables.transactions.get(&handle).cloned() };
    found.ok_or_else(has_ended)
}

impl Ongoing {
    /// Uses the transaction. A panic in it ends it: nothing of it happens.
    fn with<R>(&self, body: impl FnOnce(&mut ImageTransaction) -> Result<R>) -> Result<R> {
        let mut place = self.transaction.lock();
        let mut transaction = place.take().ok_or_else(has_ended)?;
        let done = self.held.read(|_| body(&mut transaction));
        *place = Some(transaction);
        done
    }

    fn end(&self) -> Result<ImageTransaction> {
        self.transaction.lock().take().ok_or_else(has_ended)
    }
}

/// A name: any bytes.
///
/// # Safety
/// `name` is NULL, or has `len` bytes, or ends with a NUL if `len` is negative; it lives as long as the result is used.
unsafe fn name<'a>(name: *const c_char, len: isize) -> Result<&'a [u8]> {
    match usize::try_from(len) {
        // SAFETY: the caller's promise.
        Err(_) => unsafe { arg::bytes(name, "name") },
        Ok(_) if name.is_null() => Err(Error::invalid("name is NULL")),
        // SAFETY: not NULL; the rest is the caller's promise.
        Ok(len) => Ok(unsafe { std::slice::from_raw_parts(name.cast(), len) }),
    }
}

/// # Safety
/// `target` is NULL or valid, with members that are NULL or strings.
pub(super) unsafe fn target(target: *const CContainerdDescriptor, name: &str) -> Result<Target> {
    // SAFETY: the caller's promise, here and below.
    let target = unsafe { arg::required(target, name) }?;
    // SAFETY: as above.
    let media_type = unsafe { arg::text(target.media_type, &format!("{name}->media_type")) }?;
    // SAFETY: as above.
    let digest = unsafe { arg::text(target.digest, &format!("{name}->digest")) }?;
    Ok(Target { media_type: media_type.to_owned(), digest: digest.to_owned(), size: target.size })
}

/// A NUL within a text would end it for C, and make another digest, name or label of it.
pub(super) fn whole<'a>(text: &'a str, what: &str) -> Result<&'a str> {
    if text.contains('\0') {
        return Err(Error::corrupt(format!("{what} {}: there is a NUL in it", shown(text.as_bytes()))));
    }
    Ok(text)
}

pub(super) fn target_out(target: &Target, out: &mut CContainerdDescriptor) -> Result<()> {
    out.media_type = cmem::text(whole(&target.media_type, "media type")?)?;
    out.digest = cmem::text(whole(&target.digest, "digest")?)?;
    out.size = target.size;
    Ok(())
}

pub(super) fn target_packed(packer: &mut Packer, target: &Target) -> Result<CContainerdDescriptor> {
    Ok(CContainerdDescriptor {
        media_type: packer.text(&target.media_type)?,
        digest: packer.text(&target.digest)?,
        size: target.size,
    })
}

fn image_out(image: &Image) -> Result<CBox<CContainerdImage>> {
    let mut out = CBox::<CContainerdImage>::zeroed()?;
    out.name = cmem::bytes(&image.name)?;
    out.name_len = image.name.len();
    target_out(&image.target, &mut out.target)?;
    Ok(out)
}

fn give_image(image: &Image, out: Out<CContainerdImage>) -> Result<c_int> {
    out.set(image_out(image)?.into_value());
    Ok(0)
}

fn give_list(images: &[Image], out: Out<CContainerdImageList>) -> Result<c_int> {
    for image in images {
        whole(&image.target.media_type, "media type")?;
        whole(&image.target.digest, "digest")?;
    }
    let (images, images_len) = pack(images, |packer, image| {
        Ok(CContainerdImage {
            name: packer.bytes(&image.name)?,
            name_len: image.name.len(),
            target: target_packed(packer, &image.target)?,
        })
    })?;
    out.set(CContainerdImageList { images, images_len });
    Ok(0)
}

/// Path and options of a file to open.
///
/// # Safety
/// `file` is NULL or a string, `options` NULL or valid.
pub(super) unsafe fn to_open<'a>(
    file: *const c_char,
    options: *const CContainerdImagesOptions,
) -> Result<(&'a Path, Options)> {
    // SAFETY: the caller's promise, here and below.
    let file = unsafe { arg::path(file, "file") }?;
    let mut opening = Options { timeout: Some(Duration::ZERO), ..Options::default() };
    // SAFETY: as above.
    if let Some(options) = unsafe { options.as_ref() } {
        if options.read_only {
            opening.access = Access::ReadOnly;
        }
        if options.no_sync {
            opening.durability = Durability::None;
        }
        opening.timeout = timeout(options.timeout_ms);
    }
    Ok((file, opening))
}

/// Milliseconds; negative: for ever.
pub(super) fn timeout(milliseconds: i64) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// Opens a file of images: one without namespaces, as containerd had in April 2017. It has to be initialised
/// (containerd_images_init_db) once before images can be put into it.
///
/// The file is locked until it is closed: against all others, or, if it is only read, against those that write. Bolt's own
/// programs, and containerd, keep to that lock as well.
///
/// @param file borrowed; path of the file; made if it is absent, unless it is only read. Its directory has to be there
/// @param options borrowed; NULL: the defaults
/// @return a handle, ended by containerd_images_close; NULL with errno EINVAL (NULL, empty), EILSEQ, ENOENT (there is
/// no directory, or no file to read), EBUSY (in use, the text says by which process; or, later, by another transaction that
/// writes), EUCLEAN (no bolt file, or a damaged one), EBADMSG (a file of another schema), or what the system said
///
/// # Safety
/// `file` must be NULL or a string, `options` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_open(
    file: *const c_char,
    options: *const CContainerdImagesOptions,
) -> *mut CContainerdImages {
    guard("containerd_images_open", || {
        // SAFETY: the caller's promise.
        let (path, options) = unsafe { to_open(file, options) }?;
        let file = Arc::new(Held::new(ImageFile::open(path, &options)?));
        let handle = new_handle();
        OPEN.lock().files.insert(handle, file);
        Ok(ptr::without_provenance_mut(handle))
    })
}

/// Closes a file and rolls back its transactions. Waits for calls under way in other threads, a commit above all: when it
/// returns, nobody has the file. The handles have ended: every call with them fails.
///
/// @param images NULL is fine
/// @return 0, or -1 with errno EINVAL (not open)
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_close(images: *mut CContainerdImages) -> c_int {
    guard("containerd_images_close", || {
        if images.is_null() {
            return Ok(0);
        }
        let (closed, ended) = {
            let mut tables = OPEN.lock();
            let closed = tables.files.remove(&images.addr()).ok_or_else(not_open)?;
            let ended: Vec<_> = tables.transactions.extract_if(|_, one| one.file == images.addr()).collect();
            (closed, ended)
        };
        for (_, ongoing) in ended {
            drop(ongoing.end());
        }
        Held::wait_until_unused(closed);
        Ok(0)
    })
}

/// Makes the place for images; that it is there already is fine. The calling thread must not have a transaction that
/// writes: it would wait for itself.
///
/// @return 0, or -1 with errno EINVAL (NULL, not open), EROFS (opened for reading), EBUSY (another transaction writes),
/// EUCLEAN (the file is damaged), EIO (an earlier commit failed), or what the system said
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_init_db(images: *mut CContainerdImages) -> c_int {
    guard("containerd_images_init_db", || file(images)?.1.write(ImageFile::init).map(|()| 0))
}

/// Begins a transaction: it sees the file as it is now, and its own changes. Any number may read while one writes. One
/// thread at a time uses it; others wait.
///
/// @param write false: to read
/// @return a handle, ended by containerd_images_commit, containerd_images_rollback or containerd_images_close; NULL
/// with errno as containerd_images_init_db
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_begin(
    images: *mut CContainerdImages,
    write: bool,
) -> *mut CContainerdTransaction {
    guard("containerd_images_begin", || {
        let (handle, held) = file(images)?;
        let begun =
            if write { held.write(ImageFile::begin_write) } else { held.read(|file| Ok(file.begin())) };
        let transaction = Mutex::new(Some(begun?));
        let number = new_handle();
        let mut tables = OPEN.lock();
        // It may have been closed meanwhile.
        if !tables.files.contains_key(&handle) {
            return Err(not_open());
        }
        tables.transactions.insert(number, Arc::new(Ongoing { file: handle, held, transaction }));
        Ok(ptr::without_provenance_mut(number))
    })
}

/// Writes the changes of a transaction; they are durable when it returns. The transaction has ended, also after a failure.
///
/// @return 0; -1 with errno EINVAL (NULL, it has ended), EROFS (it was begun to read: rolled back), EIO (nobody knows
/// whether the disk has the changes: the file takes no more until it is opened again), or what the system said: nothing
/// has changed
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_commit(transaction: *mut CContainerdTransaction) -> c_int {
    guard("containerd_images_commit", || {
        let ongoing = self::transaction(transaction, true)?;
        let ended = ongoing.end()?;
        if ended.is_writable() {
            ongoing.held.write(|_| ended.commit())?;
        } else {
            ended.commit()?;
        }
        Ok(0)
    })
}

/// Ends a transaction; its changes have never been.
///
/// @return 0, or -1 with errno EINVAL (NULL, it has ended)
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_rollback(transaction: *mut CContainerdTransaction) -> c_int {
    guard("containerd_images_rollback", || {
        self::transaction(transaction, true)?.end()?;
        Ok(0)
    })
}

/// Lets a name point to something, whatever it pointed to before. The target is not looked at.
///
/// @param name borrowed; any bytes, at least one
/// @param name_len bytes of the name; CONTAINERD_IMAGES_TEXT: it ends with a NUL
/// @param target borrowed
/// @return 0; -1 with errno EINVAL (NULL, the transaction has ended, "bucket name required": the name is empty,
/// "incompatible value": something else has the name), EILSEQ (the target is not UTF-8), ENOENT and
/// CONTAINERD_IMAGES_NOT_FOUND (not initialised), EROFS (the transaction was begun to read), EUCLEAN (the file is
/// damaged), or what the system said
///
/// # Safety
/// `name` must be NULL or have as many bytes; `target` NULL or valid, with members that are NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_tx_put(
    transaction: *mut CContainerdTransaction,
    name: *const c_char,
    name_len: isize,
    target: *const CContainerdDescriptor,
) -> c_int {
    guard("containerd_images_tx_put", || {
        // SAFETY: the caller's promise.
        let name = unsafe { self::name(name, name_len) }?;
        // SAFETY: as above.
        let target = unsafe { self::target(target, "target") }?;
        self::transaction(transaction, false)?.with(|transaction| transaction.put(name, &target))?;
        Ok(0)
    })
}

/// Gives an image.
///
/// @param name borrowed; as containerd_images_tx_put
/// @param image out; its members belong to the caller: containerd_images_clear_image
/// @return 0; -1 with errno EINVAL (NULL, the transaction has ended), ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is
/// none, or not initialised), EUCLEAN (the file is damaged, or there is a NUL in digest or media type), ENOMEM, or what the
/// system said
///
/// # Safety
/// `name` must be NULL or have as many bytes; `image` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_tx_get(
    transaction: *mut CContainerdTransaction,
    name: *const c_char,
    name_len: isize,
    image: *mut CContainerdImage,
) -> c_int {
    guard("containerd_images_tx_get", || {
        // SAFETY: the caller's promise.
        let name = unsafe { self::name(name, name_len) }?;
        // SAFETY: as above.
        let image = unsafe { arg::out(image, "image") }?;
        let found = self::transaction(transaction, false)?.with(|transaction| transaction.get(name))?;
        give_image(&found, image)
    })
}

/// Gives all images, in the byte order of their names.
///
/// @param list out; its members belong to the caller: containerd_images_clear_list
/// @return 0; -1 with errno as containerd_images_tx_get. Not initialised is CONTAINERD_IMAGES_NOT_FOUND, not an empty
/// list; EUCLEAN also if something is no image, or there is a NUL in a digest or media type
///
/// # Safety
/// `list` must be NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_tx_list(
    transaction: *mut CContainerdTransaction,
    list: *mut CContainerdImageList,
) -> c_int {
    guard("containerd_images_tx_list", || {
        // SAFETY: the caller's promise.
        let list = unsafe { arg::out(list, "list") }?;
        let found = self::transaction(transaction, false)?.with(|transaction| transaction.list())?;
        give_list(&found, list)
    })
}

/// Takes an image away.
///
/// @param name borrowed; as containerd_images_tx_put
/// @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none, or not initialised), or as
/// containerd_images_tx_put
///
/// # Safety
/// `name` must be NULL or have as many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_tx_delete(
    transaction: *mut CContainerdTransaction,
    name: *const c_char,
    name_len: isize,
) -> c_int {
    guard("containerd_images_tx_delete", || {
        // SAFETY: the caller's promise.
        let name = unsafe { self::name(name, name_len) }?;
        self::transaction(transaction, false)?.with(|transaction| transaction.delete(name))?;
        Ok(0)
    })
}

/// containerd_images_tx_put in a transaction of its own. The calling thread must not have one that writes.
///
/// @return 0, or -1 with errno as containerd_images_tx_put and containerd_images_commit, or EBUSY (another transaction
/// writes)
///
/// # Safety
/// As containerd_images_tx_put.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_put(
    images: *mut CContainerdImages,
    name: *const c_char,
    name_len: isize,
    target: *const CContainerdDescriptor,
) -> c_int {
    guard("containerd_images_put", || {
        // SAFETY: the caller's promise.
        let name = unsafe { self::name(name, name_len) }?;
        // SAFETY: as above.
        let target = unsafe { self::target(target, "target") }?;
        file(images)?.1.write(|file| file.put(name, &target))?;
        Ok(0)
    })
}

/// containerd_images_tx_get in a transaction of its own.
///
/// @return 0, or -1 with errno as containerd_images_tx_get
///
/// # Safety
/// As containerd_images_tx_get.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_get(
    images: *mut CContainerdImages,
    name: *const c_char,
    name_len: isize,
    image: *mut CContainerdImage,
) -> c_int {
    guard("containerd_images_get", || {
        // SAFETY: the caller's promise.
        let name = unsafe { self::name(name, name_len) }?;
        // SAFETY: as above.
        let image = unsafe { arg::out(image, "image") }?;
        give_image(&file(images)?.1.read(|file| file.get(name))?, image)
    })
}

/// containerd_images_tx_list in a transaction of its own.
///
/// @return 0, or -1 with errno as containerd_images_tx_list
///
/// # Safety
/// As containerd_images_tx_list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_list(
    images: *mut CContainerdImages,
    list: *mut CContainerdImageList,
) -> c_int {
    guard("containerd_images_list", || {
        // SAFETY: the caller's promise.
        let list = unsafe { arg::out(list, "list") }?;
        give_list(&file(images)?.1.read(ImageFile::list)?, list)
    })
}

/// containerd_images_tx_delete in a transaction of its own. The calling thread must not have one that writes.
///
/// @return 0, or -1 with errno as containerd_images_tx_delete and containerd_images_commit, or EBUSY (another
/// transaction writes)
///
/// # Safety
/// As containerd_images_tx_delete.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_delete(
    images: *mut CContainerdImages,
    name: *const c_char,
    name_len: isize,
) -> c_int {
    guard("containerd_images_delete", || {
        // SAFETY: the caller's promise.
        let name = unsafe { self::name(name, name_len) }?;
        file(images)?.1.write(|file| file.delete(name))?;
        Ok(0)
    })
}

/// What the last failure of the calling thread was, however much was said around it. Ask right after a call that failed.
///
/// @return CONTAINERD_IMAGES_NOT_FOUND, CONTAINERD_IMAGES_EXISTS or CONTAINERD_IMAGES_OTHER; 0 if no call of this
/// thread has failed. A file that is not there is CONTAINERD_IMAGES_OTHER, with errno ENOENT
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_error() -> c_int {
    let code = |error: &Error| match ImageError::behind(error) {
        Some(ImageError::NotFound) => CONTAINERD_IMAGES_NOT_FOUND,
        Some(ImageError::Exists) => CONTAINERD_IMAGES_EXISTS,
        None => CONTAINERD_IMAGES_OTHER,
    };
    last_failure(code).unwrap_or(0)
}

/// Whether the last failure of the calling thread was for a missing image; see containerd_images_error.
///
/// @return true or false
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_is_not_found() -> bool {
    containerd_images_error() == CONTAINERD_IMAGES_NOT_FOUND
}

/// Whether the last failure of the calling thread was for an image that is there already; see containerd_images_error.
///
/// @return true or false
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_is_exists() -> bool {
    containerd_images_error() == CONTAINERD_IMAGES_EXISTS
}

/// Frees the members of an image and zeroes it; the struct stays. Not for an image of a list, which goes with its list.
///
/// @param image borrowed; may be NULL
///
/// # Safety
/// The members of `image` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_clear_image(image: *mut CContainerdImage) {
    // SAFETY: the caller's promise.
    guard_void("containerd_images_clear_image", || unsafe { clear(image) });
}

/// Frees the images of a list and zeroes it; the struct stays.
///
/// @param list borrowed; may be NULL
///
/// # Safety
/// The members of `list` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_clear_list(list: *mut CContainerdImageList) {
    // SAFETY: the caller's promise.
    guard_void("containerd_images_clear_list", || unsafe { clear(list) });
}
