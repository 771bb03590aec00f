// SPDX-License-Identifier: MulanPSL-2.0
//! `docker_image_store_*`: lists of Docker's images, their names, a daemon's layers, and what frees all these.

use std::borrow::Cow;
use std::ffi::{c_char, c_int};

use crate::digest::Digest;
use crate::error::Result;
use crate::ffi::cmem::{self, CArray, CBox, Members, free, free_array, release, release_texts};
use crate::ffi::docker_image_store::{NOT_READ, id, open_store};
use crate::ffi::free::members;
use crate::ffi::guard::{guard, guard_void};
use crate::ffi::types::{
    CDockerImage, CDockerImageConfig, CDockerImageHistory, CDockerImageName, CDockerImageProblem,
    CDockerImageStore, CDockerLayer, CDockerRemovedLayer,
};
use crate::ffi::{arg, out};
use crate::imagedb::{Association, DockerLayers, History, Image, RemovedLayer, RunConfig};
use crate::layer::Problem;

members!(CDockerImageHistory { blocks: created, author, created_by, comment; });
members!(CDockerImageConfig {
    blocks: user, working_dir, stop_signal;
    texts: exposed_ports / exposed_ports_len, env / env_len, entrypoint / entrypoint_len, cmd / cmd_len,
        volumes / volumes_len;
    structs: labels;
});
members!(CDockerRemovedLayer { blocks: chain_id, diff_id; });
members!(CDockerLayer { blocks: chain_id, diff_id, parent, cache_id; });
members!(CDockerImageName { blocks: name, image; });
members!(CDockerImageProblem { blocks: subject, reason; });

// SAFETY: numbers and pointers only: all zero bytes are valid and own nothing.
unsafe impl Members for CDockerImage {
    unsafe fn free_members(&mut self) {
        let blocks = [
            self.id,
            self.parent,
            self.chain_id,
            self.created,
            self.author,
            self.comment,
            self.container,
            self.docker_version,
            self.architecture,
            self.variant,
            self.os,
            self.os_version,
            self.rootfs_type,
            self.json,
        ];
        // SAFETY: the caller's promise for each member.
        unsafe {
            blocks.into_iter().for_each(|block| release(block));
            release_texts(self.os_features, self.os_features_len);
            release_texts(self.diff_ids, self.diff_ids_len);
            free_array(self.history, self.history_len);
            free(self.config);
        }
    }
}

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

fn text(value: Option<&str>) -> Result<*mut c_char> {
    cmem::optional_text(value.map(plain).as_deref())
}

fn plain_texts(texts: &[String]) -> Vec<Cow<'_, str>> {
    texts.iter().map(|text| plain(text)).collect()
}

fn plain_labels(labels: &[(String, String)]) -> Vec<(String, String)> {
    labels.iter().map(|(key, value)| (plain(key).into_owned(), plain(value).into_owned())).collect()
}

/// An image; with its bytes it is whole, without them it is as in lists.
pub(super) fn image(image: &Image, bytes: Option<&[u8]>) -> Result<CBox<CDockerImage>> {
    let config = &*image.config;
    let mut boxed = CBox::<CDockerImage>::zeroed()?;
    let out = &mut *boxed;
    out.id = digest(Some(&image.id))?;
    out.parent = digest(image.parent.as_ref())?;
    out.chain_id = digest(config.chain_id.as_ref())?;
    out.created = text(config.created.as_deref())?;
    out.author = text(config.author.as_deref())?;
    out.comment = text(config.comment.as_deref())?;
    out.container = text(config.container.as_deref())?;
    out.docker_version = text(config.docker_version.as_deref())?;
    out.architecture = text(config.architecture.as_deref())?;
    out.variant = text(config.variant.as_deref())?;
    out.os = text(config.os.as_deref())?;
    out.os_version = text(config.os_version.as_deref())?;
    out.rootfs_type = text(config.rootfs_type.as_deref())?;
    cmem::set_texts(&mut out.os_features, &mut out.os_features_len, &plain_texts(&config.os_features))?;
    cmem::set_texts(&mut out.diff_ids, &mut out.diff_ids_len, &texts(&config.diff_ids))?;
    if let Some(bytes) = bytes {
        out.json = cmem::bytes(bytes)?;
        out.json_len = bytes.len();
        (out.history, out.history_len) = CArray::collect(&config.history, history)?.into_raw();
        out.config = run(&config.run)?.into_raw();
    }
    Ok(boxed)
}

fn history(entry: &History) -> Result<CBox<CDockerImageHistory>> {
    let mut out = CBox::<CDockerImageHistory>::zeroed()?;
    out.created = text(entry.created.as_deref())?;
    out.author = text(entry.author.as_deref())?;
    out.created_by = text(entry.created_by.as_deref())?;
    out.comment = text(entry.comment.as_deref())?;
    out.empty_layer = entry.empty_layer;
    Ok(out)
}

fn run(config: &RunConfig) -> Result<CBox<CDockerImageConfig>> {
    let mut boxed = CBox::<CDockerImageConfig>::zeroed()?;
    let out = &mut *boxed;
    out.user = text(config.user.as_deref())?;
    out.working_dir = text(config.working_dir.as_deref())?;
    out.stop_signal = text(config.stop_signal.as_deref())?;
    cmem::set_texts(&mut out.exposed_ports, &mut out.exposed_ports_len, &plain_texts(&config.exposed_ports))?;
    cmem::set_texts(&mut out.env, &mut out.env_len, &plain_texts(&config.env))?;
    cmem::set_texts(&mut out.entrypoint, &mut out.entrypoint_len, &plain_texts(&config.entrypoint))?;
    cmem::set_texts(&mut out.cmd, &mut out.cmd_len, &plain_texts(&config.cmd))?;
    cmem::set_texts(&mut out.volumes, &mut out.volumes_len, &plain_texts(&config.volumes))?;
    out.labels = out::texts(&plain_labels(&config.labels))?.into_raw();
    Ok(boxed)
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
        let (start, found) = CArray::collect(&all, |one| image(one, None))?.into_raw();
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
        let (start, found) = CArray::collect(&all, |one| image(one, None))?.into_raw();
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
    guard_void("docker_image_store_free_image", || unsafe { free(image) });
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
    // SAFETY: the caller's promise.
    guard_void("docker_image_store_free_images", || unsafe { free_array(images, len) });
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
