// SPDX-License-Identifier: MulanPSL-2.0
//! `docker_image_store_*`: lists of Docker's images, their names, a daemon's layers, and what frees all these.

use std::borrow::Cow;
use std::ffi::{c_char, c_int};
use std::ptr;

use crate::digest::Digest;
use crate::error::Result;
use crate::ffi::arg;
use crate::ffi::cmem::{self, CArray, CBox, Members, free, free_array, release};
use crate::ffi::docker_image_store::{NOT_READ, id, open_store};
use crate::ffi::free::members;
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::pack::{Packer, pack};
use crate::ffi::types::{
    CDockerImage, CDockerImageConfig, CDockerImageHistory, CDockerImageName, CDockerImageProblem,
    CDockerImageStore, CDockerLayer, CDockerRemovedLayer,
};
use crate::imagedb::{Association, DockerLayers, History, Image, RemovedLayer, RunConfig};
use crate::layer::Problem;

members!(CDockerRemovedLayer { blocks: chain_id, diff_id; });
members!(CDockerLayer { blocks: chain_id, diff_id, parent, cache_id; });
members!(CDockerImageName { blocks: name, image; });
members!(CDockerImageProblem { blocks: subject, reason; });

fn digest(value: Option<&Digest>) -> Result<*mut c_char> {
    cmem::optional_text(value.map(Digest::to_string).as_deref())
}

fn texts(values: &[Digest]) -> Vec<String> {
    values.iter().map(Digest::to_string).collect()
}

/// A NUL within a text would end it for C: U+FFFD stands for it.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// An image, whole and in one block.
pub(super) fn image(image: &Image, bytes: &[u8]) -> Result<*mut CDockerImage> {
    pack(&[(image, bytes)], |packer, (image, bytes)| {
        let config = &*image.config;
        let mut out = listed(packer, image)?;
        out.json = packer.bytes(bytes)?;
        out.json_len = bytes.len();
        (out.history, out.history_len) = (packer.array(&config.history, history)?, config.history.len());
        out.config = packer.one(|packer| run(packer, &config.run))?;
        Ok(out)
    })
    .map(|(image, _)| image)
}

/// An image as in lists.
fn listed(packer: &mut Packer, image: &Image) -> Result<CDockerImage> {
    let config = &*image.config;
    let (os_features, os_features_len) = packer.texts(&config.os_features)?;
    let (diff_ids, diff_ids_len) = packer.digests(&config.diff_ids)?;
    Ok(CDockerImage {
        id: packer.digest(&image.id)?,
        parent: packer.optional_digest(image.parent.as_ref())?,
        chain_id: packer.optional_digest(config.chain_id.as_ref())?,
        created: packer.optional_text(config.created.as_deref())?,
        author: packer.optional_text(config.author.as_deref())?,
        comment: packer.optional_text(config.comment.as_deref())?,
        container: packer.optional_text(config.container.as_deref())?,
        docker_version: packer.optional_text(config.docker_version.as_deref())?,
        architecture: packer.optional_text(config.architecture.as_deref())?,
        variant: packer.optional_text(config.variant.as_deref())?,
        os: packer.optional_text(config.os.as_deref())?,
        os_version: packer.optional_text(config.os_version.as_deref())?,
        rootfs_type: packer.optional_text(config.rootfs_type.as_deref())?,
        os_features,
        os_features_len,
        diff_ids,
        diff_ids_len,
        history: ptr::null_mut(),
        history_len: 0,
        config: ptr::null_mut(),
        json: ptr::null_mut(),
        json_len: 0,
    })
}

fn history(packer: &mut Packer, entry: &History) -> Result<CDockerImageHistory> {
    Ok(CDockerImageHistory {
        created: packer.optional_text(entry.created.as_deref())?,
        author: packer.optional_text(entry.author.as_deref())?,
        created_by: packer.optional_text(entry.created_by.as_deref())?,
        comment: packer.optional_text(entry.comment.as_deref())?,
        empty_layer: entry.empty_layer,
    })
}

fn run(packer: &mut Packer, config: &RunConfig) -> Result<CDockerImageConfig> {
    let (exposed_ports, exposed_ports_len) = packer.texts(&config.exposed_ports)?;
    let (env, env_len) = packer.texts(&config.env)?;
    let (entrypoint, entrypoint_len) = packer.texts(&config.entrypoint)?;
    let (cmd, cmd_len) = packer.texts(&config.cmd)?;
    let (volumes, volumes_len) = packer.texts(&config.volumes)?;
    Ok(CDockerImageConfig {
        user: packer.optional_text(config.user.as_deref())?,
        working_dir: packer.optional_text(config.working_dir.as_deref())?,
        stop_signal: packer.optional_text(config.stop_signal.as_deref())?,
        exposed_ports,
        exposed_ports_len,
        env,
        env_len,
        entrypoint,
        entrypoint_len,
        cmd,
        cmd_len,
        volumes,
        volumes_len,
        labels: packer.one(|packer| packer.map(config.labels.iter().map(|(key, value)| (key, value))))?,
    })
}

/// A layer that went with an image.
pub(super) fn removed_layer(layer: &RemovedLayer) -> Result<CBox<CDockerRemovedLayer>> {
    let mut out = CBox::<CDockerRemovedLayer>::zeroed()?;
    out.chain_id = digest(Some(&layer.chain_id))?;
    out.diff_id = digest(layer.diff_id.as_ref())?;
    out.size = layer.size;
    out.diff_size = layer.diff_size;
    Ok(out)
}

fn name(name: &Association) -> Result<CBox<CDockerImageName>> {
    let mut out = CBox::<CDockerImageName>::zeroed()?;
    out.name = cmem::text(&plain(&name.name))?;
    out.image = digest(Some(&name.image))?;
    Ok(out)
}

fn problem(problem: &Problem) -> Result<CBox<CDockerImageProblem>> {
    let mut out = CBox::<CDockerImageProblem>::zeroed()?;
    out.subject = cmem::text(&problem.subject)?;
    out.reason = cmem::text(&plain(&problem.reason))?;
    out.put_aside = problem.quarantined;
    Ok(out)
}

/// Gives all images in the order of their ids. One whose config is no longer what it was is left out, and logged. Configs are
/// read again only if they have changed.
///
/// @param store borrowed
/// @param images out; an array to be freed by docker_image_store_free_images. Never NULL
/// @param len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), ENOMEM
///
/// # Safety
/// `images` and `len` must be NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_map(
    store: *mut CDockerImageStore,
    images: *mut *mut CDockerImage,
    len: *mut usize,
) -> c_int {
    guard("docker_image_store_map", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let (array, count) = unsafe { (arg::out(images, "images")?, arg::out(len, "len")?) };
        let all = store.read(|db| Ok(db.map()))?;
        let (start, found) = pack(&all, listed)?;
        array.set(start);
        count.set(found);
        Ok(0)
    })
}

/// Gives the images that have no children, as docker_image_store_map.
///
/// @param store borrowed
/// @param images out; an array to be freed by docker_image_store_free_images. Never NULL
/// @param len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), ENOMEM
///
/// # Safety
/// `images` and `len` must be NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_heads(
    store: *mut CDockerImageStore,
    images: *mut *mut CDockerImage,
    len: *mut usize,
) -> c_int {
    guard("docker_image_store_heads", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let (array, count) = unsafe { (arg::out(images, "images")?, arg::out(len, "len")?) };
        let all = store.read(|db| Ok(db.heads()))?;
        let (start, found) = pack(&all, listed)?;
        array.set(start);
        count.set(found);
        Ok(0)
    })
}

/// Gives the ids of the images whose parent an image is, sorted. An image that is not there has none.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @param ids out; an array to be freed by isula_storage_free_strings; NULL when there are none
/// @param len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), ENOMEM
///
/// # Safety
/// `id` must be NULL or a string, `ids` and `len` NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_children(
    store: *mut CDockerImageStore,
    id: *const c_char,
    ids: *mut *mut *mut c_char,
    len: *mut usize,
) -> c_int {
    guard("docker_image_store_children", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_READ) }?;
        // SAFETY: the caller's promise.
        let place = unsafe { arg::out_texts(ids, len, "ids", "len") }?;
        let children = store.read(|db| Ok(db.children(&id)))?;
        place.set(&texts(&children)).map(|()| 0)
    })
}

/// Gives what was wrong when the store was opened.
///
/// @param store borrowed
/// @param problems out; an array to be freed by docker_image_store_free_problems. Never NULL
/// @param len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), ENOMEM
///
/// # Safety
/// `problems` and `len` must be NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_problems(
    store: *mut CDockerImageStore,
    problems: *mut *mut CDockerImageProblem,
    len: *mut usize,
) -> c_int {
    guard("docker_image_store_problems", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let (array, count) = unsafe { (arg::out(problems, "problems")?, arg::out(len, "len")?) };
        let (start, found) = store.read(|db| CArray::collect(db.problems(), problem))?.into_raw();
        array.set(start);
        count.set(found);
        Ok(0)
    })
}

/// Gives an image a name: a tag, `latest` if there is none, or a digest, which counts if there are both. The image need not be
/// there. The same again is fine.
///
/// @param store borrowed
/// @param name borrowed; as people write it: `docker.io/library/` may be missing
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @param force takes a tag away from another image; a digest stays where it is
/// @return 0, or -1 with errno EINVAL (NULL, not a name), EILSEQ, ENOENT (id is no digest), EEXIST (another image has it), EROFS,
/// EIO (an earlier failure: open it again), or what the system said
///
/// # Safety
/// `name` and `id` must be NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_add_name(
    store: *mut CDockerImageStore,
    name: *const c_char,
    id: *const c_char,
    force: bool,
) -> c_int {
    guard("docker_image_store_add_name", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(name, "name") }?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_READ) }?;
        store.write(|db| db.add_name(name, &id, force)).map(|()| 0)
    })
}

/// Takes a name away from the image that has it. The image stays.
///
/// @param store borrowed
/// @param name borrowed; as for docker_image_store_add_name
/// @return 0, or -1 with errno EINVAL (NULL, not a name), EILSEQ, ENOENT (none), EROFS, EIO (an earlier failure: open it again), or
/// what the system said
///
/// # Safety
/// `name` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_delete_name(
    store: *mut CDockerImageStore,
    name: *const c_char,
) -> c_int {
    guard("docker_image_store_delete_name", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(name, "name") }?;
        store.write(|db| db.delete_name(name)).map(|()| 0)
    })
}

/// Gives the image that has a name. The image need not be there.
///
/// @param store borrowed
/// @param name borrowed; as for docker_image_store_add_name
/// @return the id, malloc'ed, or NULL with errno EINVAL (NULL, not a name), EILSEQ, ENOENT (none), EUCLEAN (what is recorded is no
/// id), ENOMEM
///
/// # Safety
/// `name` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_by_name(
    store: *mut CDockerImageStore,
    name: *const c_char,
) -> *mut c_char {
    guard("docker_image_store_by_name", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let name = unsafe { arg::text(name, "name") }?;
        let id = store.read(|db| db.by_name(name))?;
        cmem::text(&id.to_string())
    })
}

/// Gives the names of an image, sorted.
///
/// @param store borrowed
/// @param id borrowed; `sha256:` and 64 hexadecimal digits
/// @param names out; an array to be freed by isula_storage_free_strings; NULL when there are none
/// @param len out; their number
/// @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), ENOMEM
///
/// # Safety
/// `id` must be NULL or a string, `names` and `len` NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_names(
    store: *mut CDockerImageStore,
    id: *const c_char,
    names: *mut *mut *mut c_char,
    len: *mut usize,
) -> c_int {
    guard("docker_image_store_names", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let id = unsafe { self::id(id, "id", NOT_READ) }?;
        // SAFETY: the caller's promise.
        let place = unsafe { arg::out_texts(names, len, "names", "len") }?;
        let names = store.read(|db| Ok(db.names(&id)))?;
        place.set(&names).map(|()| 0)
    })
}

/// Gives all names in a repository, or all there are, sorted.
///
/// @param store borrowed
/// @param repository borrowed; a name without tag and digest; NULL: all repositories
/// @param names out; an array to be freed by docker_image_store_free_names. Never NULL
/// @param len out; their number
/// @return 0, or -1 with errno EINVAL (NULL, not a name), EILSEQ, ENOMEM
///
/// # Safety
/// `repository` must be NULL or a string, `names` and `len` NULL or writable; what they held is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_list_names(
    store: *mut CDockerImageStore,
    repository: *const c_char,
    names: *mut *mut CDockerImageName,
    len: *mut usize,
) -> c_int {
    guard("docker_image_store_list_names", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let repository = unsafe { arg::optional_text(repository, "repository") }?;
        // SAFETY: the caller's promise.
        let (array, count) = unsafe { (arg::out(names, "names")?, arg::out(len, "len")?) };
        let all = store.read(|db| match repository {
            Some(repository) => db.names_in(repository),
            None => Ok(db.all_names()),
        })?;
        let (start, found) = CArray::collect(&all, name)?.into_raw();
        array.set(start);
        count.set(found);
        Ok(0)
    })
}

/// Gives a layer that a Docker daemon has recorded beside the images, in layerdb, wherever the store has its layers from.
///
/// @param store borrowed
/// @param chain_id borrowed; `sha256:` and 64 hexadecimal digits
/// @return the layer, to be freed by docker_image_store_free_layer, or NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or one
/// below it is not there), EUCLEAN (its record contradicts itself), ENOMEM, or what the system said
///
/// # Safety
/// `chain_id` must be NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_layer(
    store: *mut CDockerImageStore,
    chain_id: *const c_char,
) -> *mut CDockerLayer {
    guard("docker_image_store_layer", || {
        let store = open_store(store)?;
        // SAFETY: the caller's promise.
        let chain_id = unsafe { self::id(chain_id, "chain_id", "no such layer") }?;
        let layer = store.read(|db| DockerLayers::open(db.root())?.get(&chain_id))?;
        let mut out = CBox::<CDockerLayer>::zeroed()?;
        out.chain_id = digest(Some(&layer.chain_id))?;
        out.diff_id = digest(Some(&layer.diff_id))?;
        out.parent = digest(layer.parent.as_ref())?;
        out.cache_id = cmem::text(&layer.cache_id)?;
        out.size = layer.size;
        out.diff_size = layer.diff_size;
        Ok(out.into_raw())
    })
}

/// Frees an image.
///
/// @param image taken; may be NULL
///
/// # Safety
/// `image` must come from docker_image_store_get and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_free_image(image: *mut CDockerImage) {
    // SAFETY: the caller's promise.
    guard_void("docker_image_store_free_image", || unsafe { release(image) });
}

/// Frees an array of images.
///
/// @param images taken; may be NULL
/// @param len their number
///
/// # Safety
/// `images` must be an array of this library with `len` elements and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_free_images(images: *mut CDockerImage, len: usize) {
    // The images and all that they point to are one block.
    let _ = len;
    // SAFETY: the caller's promise.
    guard_void("docker_image_store_free_images", || unsafe { release(images) });
}

/// Frees an array of layers that went with an image.
///
/// @param layers taken; may be NULL
/// @param len their number
///
/// # Safety
/// `layers` must be an array of this library with `len` elements and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_free_removed_layers(
    layers: *mut CDockerRemovedLayer,
    len: usize,
) {
    // SAFETY: the caller's promise.
    guard_void("docker_image_store_free_removed_layers", || unsafe { free_array(layers, len) });
}

/// Frees an array of names.
///
/// @param names taken; may be NULL
/// @param len their number
///
/// # Safety
/// `names` must be an array of this library with `len` elements and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_free_names(names: *mut CDockerImageName, len: usize) {
    // SAFETY: the caller's promise.
    guard_void("docker_image_store_free_names", || unsafe { free_array(names, len) });
}

/// Frees an array of problems.
///
/// @param problems taken; may be NULL
/// @param len their number
///
/// # Safety
/// `problems` must be an array of this library with `len` elements and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_free_problems(problems: *mut CDockerImageProblem, len: usize) {
    // SAFETY: the caller's promise.
    guard_void("docker_image_store_free_problems", || unsafe { free_array(problems, len) });
}

/// Frees a layer.
///
/// @param layer taken; may be NULL
///
/// # Safety
/// `layer` must come from docker_image_store_layer and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docker_image_store_free_layer(layer: *mut CDockerLayer) {
    // SAFETY: the caller's promise.
    guard_void("docker_image_store_free_layer", || unsafe { free(layer) });
}
