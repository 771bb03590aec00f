// SPDX-License-Identifier: MulanPSL-2.0
//! `containerd_images_namespaced_*`: images in namespaces, with labels and times, as containerd's metadata has them today.

use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::Arc;

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use crate::error::{During, Error, Result};
use crate::ffi::arg::Out;
use crate::ffi::cmem::{self, CBox, clear};
use crate::ffi::containerd_images::{new_handle, target, target_out, target_packed, timeout, to_open, whole};
use crate::ffi::global::Held;
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::pack::{Packer, pack};
use crate::ffi::types::{
    CContainerdImagesOptions, CContainerdImportReport, CContainerdNamespacedImage, CContainerdNamespacedList,
    CJsonMapStringString,
};
use crate::ffi::{arg, out};
use crate::metadata::{Filters, Labels, NamespacedFile, NamespacedImage, shown};

/// An open file of images in namespaces; not to be looked into.
#[derive(Debug)]
pub struct CContainerdNamespaced(());

/// Taken alone and for a moment. The handles are numbers; see `containerd_images`.
static OPEN: Lazy<Mutex<HashMap<usize, Arc<Held<NamespacedFile>>>>> = Lazy::new(Mutex::default);

fn not_open() -> Error {
    Error::invalid("images is not open: not of containerd_images_namespaced_open, or closed")
}

fn file(images: *const CContainerdNamespaced) -> Result<Arc<Held<NamespacedFile>>> {
    if images.is_null() {
        return Err(Error::invalid("images is NULL"));
    }
    OPEN.lock().get(&images.addr()).cloned().ok_or_else(not_open)
}

/// # Safety
/// `map` is NULL or a map of libisula.
unsafe fn labels(map: *const CJsonMapStringString, name: &str) -> Result<Labels> {
    // SAFETY: the caller's promise.
    Ok(unsafe { arg::map(map, name) }?.into_iter().collect())
}

/// # Safety
/// `image` is NULL or valid, with members that are NULL or valid.
unsafe fn image_of(image: *const CContainerdNamespacedImage) -> Result<NamespacedImage> {
    // SAFETY: the caller's promise, here and below.
    let image = unsafe { arg::required(image, "image") }?;
    // SAFETY: as above.
    let name = unsafe { arg::text(image.name, "image->name") }?.to_owned();
    // SAFETY: as above.
    let target = unsafe { target(&raw const image.target, "image->target") }?;
    // SAFETY: as above.
    let annotations = unsafe { labels(image.annotations, "image->annotations") }?;
    // SAFETY: as above.
    let labels = unsafe { labels(image.labels, "image->labels") }?;
    Ok(NamespacedImage { name, target, annotations, labels, created: None, updated: None })
}

fn image_out(image: &NamespacedImage) -> Result<CBox<CContainerdNamespacedImage>> {
    no_nul(image)?;
    let mut boxed = CBox::<CContainerdNamespacedImage>::zeroed()?;
    let out = &mut *boxed;
    out.name = cmem::text(&image.name)?;
    target_out(&image.target, &mut out.target)?;
    out.labels = labels_out(&image.labels)?;
    out.annotations = labels_out(&image.annotations)?;
    let (created, updated) = (image.created.unwrap_or_default(), image.updated.unwrap_or_default());
    (out.created_seconds, out.created_nanos) = (created.seconds, created.nanos);
    (out.updated_seconds, out.updated_nanos) = (updated.seconds, updated.nanos);
    Ok(boxed)
}

/// The same for lists.
fn packed(packer: &mut Packer, image: &NamespacedImage) -> Result<CContainerdNamespacedImage> {
    let labels = |packer: &mut Packer, labels: &Labels| {
        if labels.is_empty() { Ok(ptr::null_mut()) } else { packer.one(|packer| packer.map(labels.iter())) }
    };
    let (created, updated) = (image.created.unwrap_or_default(), image.updated.unwrap_or_default());
    Ok(CContainerdNamespacedImage {
        name: packer.text(&image.name)?,
        target: target_packed(packer, &image.target)?,
        labels: labels(packer, &image.labels)?,
        annotations: labels(packer, &image.annotations)?,
        created_seconds: created.seconds,
        updated_seconds: updated.seconds,
        created_nanos: created.nanos,
        updated_nanos: updated.nanos,
    })
}

/// Whether C can be given all texts of an image.
fn no_nul(image: &NamespacedImage) -> Result<()> {
    let check = || -> Result<()> {
        whole(&image.name, "name")?;
        whole(&image.target.digest, "digest")?;
        whole(&image.target.media_type, "media type")?;
        for (key, value) in image.labels.iter().chain(&image.annotations) {
            whole(key, "label or annotation")?;
            whole(value, "value of a label or annotation")?;
        }
        Ok(())
    };
    check().during(|| format!("image {}", shown(image.name.as_bytes())))
}

fn labels_out(labels: &Labels) -> Result<*mut CJsonMapStringString> {
    if labels.is_empty() {
        return Ok(ptr::null_mut());
    }
    let pairs: Vec<_> = labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(out::texts(&pairs)?.into_raw())
}

/// Where an image goes that may not be asked for.
///
/// # Safety
/// `stored` is NULL or may be written.
unsafe fn maybe(stored: *mut CContainerdNamespacedImage) -> Result<Option<Out<CContainerdNamespacedImage>>> {
    // SAFETY: the caller's promise.
    if stored.is_null() { Ok(None) } else { unsafe { arg::out(stored, "stored") }.map(Some) }
}

fn give(image: &NamespacedImage, out: Option<Out<CContainerdNamespacedImage>>) -> Result<c_int> {
    if let Some(out) = out {
        out.set(image_out(image)?.into_value());
    }
    Ok(0)
}

/// Opens a file of images in namespaces, with the layout of containerd's meta.db; made and initialised if it is absent,
/// unless it is only read. It is locked as by containerd_images_open. The file of a containerd that runs is in use, and
/// is not for writing even when it does not run: import from it.
///
/// @param file borrowed; path of the file; its directory has to be there
/// @param options borrowed; NULL: the defaults
/// @return a handle, ended by containerd_images_namespaced_close; NULL with errno as containerd_images_open, or
/// EOPNOTSUPP (the schema has a version that is not known, or is to be written and is older than 3)
///
/// # Safety
/// `file` must be NULL or a string, `options` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_open(
    file: *const c_char,
    options: *const CContainerdImagesOptions,
) -> *mut CContainerdNamespaced {
    guard("containerd_images_namespaced_open", || {
        // SAFETY: the caller's promise.
        let (path, options) = unsafe { to_open(file, options) }?;
        let file = Arc::new(Held::new(NamespacedFile::open(path, &options)?));
        let handle = new_handle();
        OPEN.lock().insert(handle, file);
        Ok(ptr::without_provenance_mut(handle))
    })
}

/// Closes a file. Waits for calls under way in other threads: when it returns, nobody has the file.
///
/// @param images NULL is fine
/// @return 0, or -1 with errno EINVAL (not open)
#[unsafe(no_mangle)]
pub extern "C" fn containerd_images_namespaced_close(images: *mut CContainerdNamespaced) -> c_int {
    guard("containerd_images_namespaced_close", || {
        if images.is_null() {
            return Ok(0);
        }
        let closed = OPEN.lock().remove(&images.addr());
        Held::wait_until_unused(closed.ok_or_else(not_open)?);
        Ok(0)
    })
}

/// Makes an image, and its namespace if that is not there. Its times are now.
///
/// @param name_space borrowed; letters and digits, single '-', '.' and '_' between them, at most 76
/// @param image borrowed; its times are not looked at. Labels with empty values are not stored
/// @param stored out; NULL: not asked for. The image as it was stored; its members belong to the caller:
/// containerd_images_namespaced_clear_image
/// @return 0; -1 with errno EEXIST and CONTAINERD_IMAGES_EXISTS (there is one), EINVAL (NULL; no name, media type, digest
/// or positive size; a label of more than 4,096 bytes; not open), EILSEQ, EROFS, EBUSY (another call writes), EUCLEAN
/// (the file is damaged), EIO (an earlier commit failed), ENOMEM, or what the system said
///
/// # Safety
/// `name_space` must be NULL or a string, `image` NULL or valid, `stored` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_create(
    images: *mut CContainerdNamespaced,
    name_space: *const c_char,
    image: *const CContainerdNamespacedImage,
    stored: *mut CContainerdNamespacedImage,
) -> c_int {
    guard("containerd_images_namespaced_create", || {
        // SAFETY: the caller's promise, here and below.
        let namespace = unsafe { arg::text(name_space, "name_space") }?;
        // SAFETY: as above.
        let image = unsafe { image_of(image) }?;
        // SAFETY: as above.
        let stored = unsafe { maybe(stored) }?;
        give(&file(images)?.write(|file| file.create(namespace, &image))?, stored)
    })
}

/// Changes an image; the time of its creation stays.
///
/// @param image borrowed; the image of this name is changed
/// @param fields borrowed; what is replaced: "target" (with its annotations), "labels", "labels.KEY", "annotations",
/// "annotations.KEY"; a key that the image does not have is taken away
/// @param fields_len number of fields; 0: everything is replaced
/// @param stored out; NULL: not asked for; as containerd_images_namespaced_create
/// @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none), EINVAL (another field), or as
/// containerd_images_namespaced_create. The image may be changed durably when stored cannot be given (EUCLEAN: there is a NUL in
/// a text that it had; ENOMEM)
///
/// # Safety
/// As containerd_images_namespaced_create; `fields` must be NULL or have `fields_len` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_update(
    images: *mut CContainerdNamespaced,
    name_space: *const c_char,
    image: *const CContainerdNamespacedImage,
    fields: *const *const c_char,
    fields_len: usize,
    stored: *mut CContainerdNamespacedImage,
) -> c_int {
    guard("containerd_images_namespaced_update", || {
        // SAFETY: the caller's promise, here and below.
        let namespace = unsafe { arg::text(name_space, "name_space") }?;
        // SAFETY: as above.
        let image = unsafe { image_of(image) }?;
        // SAFETY: as above.
        let fields = unsafe { arg::texts(fields, fields_len, "fields") }?;
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        // SAFETY: as above.
        let stored = unsafe { maybe(stored) }?;
        give(&file(images)?.write(|file| file.update(namespace, &image, &fields))?, stored)
    })
}

/// Takes an image away.
///
/// @param digest borrowed; NULL: whatever it points to; else only if it points to this digest
/// @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none, or it points to something else), or as
/// containerd_images_namespaced_create
///
/// # Safety
/// `name_space`, `name` and `digest` must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_delete(
    images: *mut CContainerdNamespaced,
    name_space: *const c_char,
    name: *const c_char,
    digest: *const c_char,
) -> c_int {
    guard("containerd_images_namespaced_delete", || {
        // SAFETY: the caller's promise, here and below.
        let namespace = unsafe { arg::text(name_space, "name_space") }?;
        // SAFETY: as above.
        let name = unsafe { arg::text(name, "name") }?;
        // SAFETY: as above.
        let digest = unsafe { arg::optional_text(digest, "digest") }?;
        file(images)?.write(|file| file.delete(namespace, name, digest))?;
        Ok(0)
    })
}

/// Gives an image.
///
/// @param image out; its members belong to the caller: containerd_images_namespaced_clear_image
/// @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none), EINVAL (NULL, not open, no name of a
/// namespace), EILSEQ, EUCLEAN (the image or the file is damaged, or there is a NUL in a text), ENOMEM, or what the system said
///
/// # Safety
/// `name_space` and `name` must be NULL or strings, `image` NULL or writable; what it held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_get(
    images: *mut CContainerdNamespaced,
    name_space: *const c_char,
    name: *const c_char,
    image: *mut CContainerdNamespacedImage,
) -> c_int {
    guard("containerd_images_namespaced_get", || {
        // SAFETY: the caller's promise, here and below.
        let namespace = unsafe { arg::text(name_space, "name_space") }?;
        // SAFETY: as above.
        let name = unsafe { arg::text(name, "name") }?;
        // SAFETY: as above.
        let image = unsafe { arg::out(image, "image") }?;
        give(&file(images)?.read(|file| file.get(namespace, name))?, Some(image))
    })
}

/// Gives the images of a namespace; none if there is no such namespace.
///
/// @param filters borrowed; the images that one of them chooses: conditions such as `name==N`, `name^=PREFIX`,
/// `digest==D`, `labels.KEY`, `labels."KEY"!="VALUE"`, all of which hold, with commas. See docs/containerd-images.md
/// @param filters_len number of filters; 0: all images
/// @param list out; its members belong to the caller: containerd_images_namespaced_clear_list
/// @return 0; -1 with errno EINVAL (NULL, not open, a filter that is none), EILSEQ, EUCLEAN (the file is damaged), ENOMEM,
/// or what the system said
///
/// # Safety
/// `name_space` must be NULL or a string, `filters` NULL or have `filters_len` strings, `list` NULL or writable; what it
/// held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_list(
    images: *mut CContainerdNamespaced,
    name_space: *const c_char,
    filters: *const *const c_char,
    filters_len: usize,
    list: *mut CContainerdNamespacedList,
) -> c_int {
    guard("containerd_images_namespaced_list", || {
        // SAFETY: the caller's promise, here and below.
        let namespace = unsafe { arg::text(name_space, "name_space") }?;
        // SAFETY: as above.
        let filters = unsafe { arg::texts(filters, filters_len, "filters") }?;
        // SAFETY: as above.
        let list = unsafe { arg::out(list, "list") }?;
        let filters = Filters::parse(&filters)?;
        let found = file(images)?.read(|file| file.list(namespace, &filters))?;
        for (_, problem) in &found.problems {
            log::warn!("left out of the images of {namespace}: {}", problem.report());
        }
        let mut unreadable = usize::try_from(found.unreadable).unwrap_or(usize::MAX);
        let mut images = found.images;
        images.retain(|image| {
            let checked = no_nul(image);
            if let Err(problem) = &checked {
                log::warn!("left out of the images of {namespace}: {}", problem.report());
                unreadable += 1;
            }
            checked.is_ok()
        });
        let (images, images_len) = pack(&images, packed)?;
        list.set(CContainerdNamespacedList { images, images_len, unreadable });
        Ok(0)
    })
}

/// Gives the namespaces, in the byte order of their names.
///
/// @param names out; an array and its texts that belong to the caller; NULL if there are none
/// @param names_len out; their number
/// @return 0, or -1 with errno EINVAL (NULL, not open), EUCLEAN (the file is damaged), ENOMEM, or what the system said
///
/// # Safety
/// `names` and `names_len` must be NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_namespaces(
    images: *mut CContainerdNamespaced,
    names: *mut *mut *mut c_char,
    names_len: *mut usize,
) -> c_int {
    guard("containerd_images_namespaced_namespaces", || {
        // SAFETY: the caller's promise.
        let names = unsafe { arg::out_texts(names, names_len, "names", "names_len") }?;
        names.set(&file(images)?.read(NamespacedFile::namespaces)?)?;
        Ok(0)
    })
}

/// Makes a namespace.
///
/// @param labels borrowed; NULL: none
/// @return 0; -1 with errno EEXIST (there is one), or as containerd_images_namespaced_create
///
/// # Safety
/// `name_space` must be NULL or a string, `labels` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_create_namespace(
    images: *mut CContainerdNamespaced,
    name_space: *const c_char,
    labels: *const CJsonMapStringString,
) -> c_int {
    guard("containerd_images_namespaced_create_namespace", || {
        // SAFETY: the caller's promise, here and below.
        let namespace = unsafe { arg::text(name_space, "name_space") }?;
        // SAFETY: as above.
        let labels = unsafe { self::labels(labels, "labels") }?;
        file(images)?.write(|file| file.create_namespace(namespace, &labels))?;
        Ok(0)
    })
}

/// Takes a namespace away that has no images, nor anything else.
///
/// @return 0; -1 with errno ENOENT (there is none), EBUSY (it is not empty, or another call writes), or as
/// containerd_images_namespaced_create
///
/// # Safety
/// `name_space` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_delete_namespace(
    images: *mut CContainerdNamespaced,
    name_space: *const c_char,
) -> c_int {
    guard("containerd_images_namespaced_delete_namespace", || {
        // SAFETY: the caller's promise.
        let namespace = unsafe { arg::text(name_space, "name_space") }?;
        file(images)?.write(|file| file.delete_namespace(namespace))?;
        Ok(0)
    })
}

/// Takes over images from another file of this layout, such as the meta.db of a containerd that does not run, with their
/// labels and times. That file is only read. All of them or, after a failure, none. An image that is here already stays as
/// it is.
///
/// @param from borrowed; path of the other file
/// @param name_space borrowed; NULL: all namespaces
/// @param timeout_ms how long to wait for a process that has the other file, in milliseconds; 0: not at all; negative:
/// for ever
/// @param report out; NULL: not asked for
/// @return 0; -1 with errno ENOENT (there is no such file), EBUSY (containerd runs: the text says as which process),
/// EBADMSG, EUCLEAN, EOPNOTSUPP (the other file is of another schema or version, or damaged), or as
/// containerd_images_namespaced_create
///
/// # Safety
/// `from` and `name_space` must be NULL or strings, `report` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_import(
    images: *mut CContainerdNamespaced,
    from: *const c_char,
    name_space: *const c_char,
    timeout_ms: i64,
    report: *mut CContainerdImportReport,
) -> c_int {
    guard("containerd_images_namespaced_import", || {
        // SAFETY: the caller's promise, here and below.
        let from = unsafe { arg::path(from, "from") }?;
        // SAFETY: as above.
        let namespace = unsafe { arg::optional_text(name_space, "name_space") }?;
        // SAFETY: as above.
        let report = if report.is_null() { None } else { Some(unsafe { arg::out(report, "report") }?) };
        let done = file(images)?.write(|file| file.import(from, namespace, timeout(timeout_ms)))?;
        for problem in &done.problems {
            log::warn!("left out of the import from {}: {}", from.display(), problem.report());
        }
        if let Some(report) = report {
            report.set(CContainerdImportReport {
                imported: done.imported.len(),
                present: done.present.len(),
                left_out: usize::try_from(done.left_out).unwrap_or(usize::MAX),
            });
        }
        Ok(0)
    })
}

/// Frees the members of an image and zeroes it; the struct stays. Not for an image of a list, which goes with its list.
///
/// @param image borrowed; may be NULL
///
/// # Safety
/// The members of `image` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_clear_image(image: *mut CContainerdNamespacedImage) {
    // SAFETY: the caller's promise.
    guard_void("containerd_images_namespaced_clear_image", || unsafe { clear(image) });
}

/// Frees the images of a list and zeroes it; the struct stays.
///
/// @param list borrowed; may be NULL
///
/// # Safety
/// The members of `list` must be as this library returns them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn containerd_images_namespaced_clear_list(list: *mut CContainerdNamespacedList) {
    // SAFETY: the caller's promise.
    guard_void("containerd_images_namespaced_clear_list", || unsafe { clear(list) });
}
