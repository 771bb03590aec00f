// SPDX-License-Identifier: MulanPSL-2.0
//! Rust to C: values of the core as malloc-owned structs.

use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::ffi::cmem::{self, CArray, CBox};
use crate::ffi::types::{
    CContainerInspectGraphDriver, CContainerInspectGraphDriverData, CImagetoolFsInfo,
    CImagetoolFsInfoImageFilesystemsElement, CImagetoolFsInfoImageFilesystemsFsId,
    CImagetoolFsInfoImageFilesystemsInodesUsed, CImagetoolFsInfoImageFilesystemsUsedBytes,
    CImagetoolImageSummary, CImagetoolImageSummaryUid, CImagetoolImagesList, CJsonMapStringInt64,
    CJsonMapStringString, CLayer, CLayerList, CStorageImage,
};
use crate::image::ImageSummary;
use crate::layer::Layer;
use crate::record::image::ImageRecord;
use crate::storage::Metadata;
use crate::time::Timestamp;
use crate::units::Usage;

/// A path.
pub(crate) fn path(path: &Path) -> Result<*mut c_char> {
    cmem::bytes(path.as_os_str().as_bytes())
}

/// A layer.
pub(crate) fn layer(layer: &Layer) -> Result<CBox<CLayer>> {
    let mut out = CBox::<CLayer>::zeroed()?;
    out.id = cmem::text(layer.id.as_str())?;
    out.parent = cmem::optional_text(layer.parent.as_ref().map(|parent| parent.as_str()))?;
    out.mount_point = layer.mount_point.as_deref().map_or(Ok(std::ptr::null_mut()), path)?;
    out.mount_count = layer.mount_count;
    out.compressed_digest = cmem::optional_text(layer.compressed_digest.as_deref())?;
    out.compress_size = layer.compressed_size;
    out.uncompressed_digest = cmem::optional_text(layer.uncompressed_digest.as_deref())?;
    out.uncompress_size = layer.uncompressed_size;
    out.writable = layer.writable;
    Ok(out)
}

/// A list of layers; its array is never NULL.
pub(crate) fn layer_list(layers: &[Layer]) -> Result<CBox<CLayerList>> {
    let mut out = CBox::<CLayerList>::zeroed()?;
    let list = &mut *out;
    cmem::set_pointers(&mut list.layers, &mut list.layers_len, layers, layer)?;
    Ok(out)
}

/// The record of an image.
pub(crate) fn image(record: &ImageRecord) -> Result<CBox<CStorageImage>> {
    let mut boxed = CBox::<CStorageImage>::zeroed()?;
    let out = &mut *boxed;
    out.id = cmem::optional_text(record.id.as_deref())?;
    out.digest = cmem::optional_text(record.digest.as_deref())?;
    cmem::set_texts(&mut out.names, &mut out.names_len, &record.names)?;
    out.layer = cmem::optional_text(record.layer.as_deref())?;
    cmem::set_texts(&mut out.mapped_layers, &mut out.mapped_layers_len, &record.mapped_layers)?;
    out.metadata = cmem::optional_text(record.metadata.as_deref())?;
    cmem::set_texts(&mut out.big_data_names, &mut out.big_data_names_len, &record.big_data_names)?;
    if let Some(sizes) = &record.big_data_sizes {
        out.big_data_sizes = numbers(sizes)?.into_raw();
    }
    if let Some(digests) = &record.big_data_digests {
        out.big_data_digests = texts(digests)?.into_raw();
    }
    out.created = cmem::optional_text(record.created.as_deref())?;
    out.loaded = cmem::optional_text(record.loaded.as_deref())?;
    out.size = record.size;
    Ok(boxed)
}

/// Records of images in one array; NULL and 0 when there are none.
pub(crate) fn images<R: AsRef<ImageRecord>>(records: &[R]) -> Result<(*mut CStorageImage, usize)> {
    if records.is_empty() {
        return Ok((std::ptr::null_mut(), 0));
    }
    Ok(CArray::collect(records, |record| image(record.as_ref()))?.into_raw())
}

/// A map of texts.
pub(crate) fn texts(pairs: &[(String, String)]) -> Result<CBox<CJsonMapStringString>> {
    let (keys, values): (Vec<_>, Vec<_>) = pairs.iter().map(|(key, value)| (key, value)).unzip();
    let mut boxed = CBox::<CJsonMapStringString>::zeroed()?;
    let out = &mut *boxed;
    // The length counts both arrays, and is true for both in every moment only if one of them is NULL or whole.
    let (keys, len) = cmem::texts(&keys)?;
    out.keys = keys;
    out.len = len;
    out.values = cmem::texts(&values)?.0;
    Ok(boxed)
}

/// A map of numbers.
fn numbers(pairs: &[(String, i64)]) -> Result<CBox<CJsonMapStringInt64>> {
    let (keys, values): (Vec<_>, Vec<_>) = pairs.iter().map(|(key, value)| (key, *value)).unzip();
    let mut boxed = CBox::<CJsonMapStringInt64>::zeroed()?;
    let out = &mut *boxed;
    out.values = cmem::numbers(&values)?;
    cmem::set_texts(&mut out.keys, &mut out.len, &keys)?;
    Ok(boxed)
}

/// What lists show of an image.
pub(crate) fn summary(summary: &ImageSummary) -> Result<CBox<CImagetoolImageSummary>> {
    let mut boxed = CBox::<CImagetoolImageSummary>::zeroed()?;
    let out = &mut *boxed;
    out.id = cmem::text(&summary.id)?;
    cmem::set_texts(&mut out.repo_tags, &mut out.repo_tags_len, &summary.repo_tags)?;
    cmem::set_texts(&mut out.repo_digests, &mut out.repo_digests_len, &summary.repo_digests)?;
    out.top_layer = cmem::optional_text(summary.top_layer.as_deref())?;
    out.size = summary.size;
    out.created = cmem::optional_text(summary.created.as_deref())?;
    out.loaded = cmem::optional_text(summary.loaded.as_deref())?;
    if let Some(uid) = summary.uid {
        let mut value = CBox::<CImagetoolImageSummaryUid>::zeroed()?;
        value.value = uid;
        out.uid = value.into_raw();
    }
    out.username = cmem::optional_text(summary.username.as_deref())?;
    if let Some(labels) = &summary.labels {
        out.labels = texts(labels)?.into_raw();
    }
    Ok(boxed)
}

/// What lists show of all images.
pub(crate) fn summaries(summaries: &[Arc<ImageSummary>]) -> Result<CBox<CImagetoolImagesList>> {
    let mut out = CBox::<CImagetoolImagesList>::zeroed()?;
    let list = &mut *out;
    cmem::set_pointers(&mut list.images, &mut list.images_len, summaries, |image| summary(image))?;
    Ok(out)
}

/// Usage of one directory, counted now.
pub(crate) fn fs_info(path: &Path, usage: Usage) -> Result<CBox<CImagetoolFsInfo>> {
    let element = |_: &()| {
        let mut boxed = CBox::<CImagetoolFsInfoImageFilesystemsElement>::zeroed()?;
        let out = &mut *boxed;
        out.timestamp = Timestamp::now().unix_nanos();
        let mut place = CBox::<CImagetoolFsInfoImageFilesystemsFsId>::zeroed()?;
        place.mountpoint = self::path(path)?;
        out.fs_id = place.into_raw();
        let mut bytes = CBox::<CImagetoolFsInfoImageFilesystemsUsedBytes>::zeroed()?;
        bytes.value = usage.bytes.0;
        out.used_bytes = bytes.into_raw();
        let mut inodes = CBox::<CImagetoolFsInfoImageFilesystemsInodesUsed>::zeroed()?;
        inodes.value = usage.inodes.0;
        out.inodes_used = inodes.into_raw();
        Ok(boxed)
    };
    let mut out = CBox::<CImagetoolFsInfo>::zeroed()?;
    let info = &mut *out;
    cmem::set_pointers(&mut info.image_filesystems, &mut info.image_filesystems_len, &[()], element)?;
    Ok(out)
}

/// Where a layer's content is.
pub(crate) fn graph_driver(name: &str, metadata: &Metadata) -> Result<CBox<CContainerInspectGraphDriver>> {
    let mut data = CBox::<CContainerInspectGraphDriverData>::zeroed()?;
    for (key, value) in metadata {
        let member = match *key {
            "LowerDir" => &mut data.lower_dir,
            "MergedDir" => &mut data.merged_dir,
            "UpperDir" => &mut data.upper_dir,
            "WorkDir" => &mut data.work_dir,
            "DeviceId" => &mut data.device_id,
            "DeviceName" => &mut data.device_name,
            "DeviceSize" => &mut data.device_size,
            _ => continue,
        };
        // SAFETY: NULL, or made here for an earlier pair of the same key.
        unsafe { cmem::release(*member) };
        *member = std::ptr::null_mut();
        *member = cmem::text(value)?;
    }
    let mut out = CBox::<CContainerInspectGraphDriver>::zeroed()?;
    out.name = cmem::text(name)?;
    out.data = data.into_raw();
    Ok(out)
}
