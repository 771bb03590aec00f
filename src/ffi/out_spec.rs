// SPDX-License-Identifier: MulanPSL-2.0
//! Rust to C: an image with its config.

use crate::error::Result;
use crate::ffi::cmem::{self, CBox};
use crate::ffi::out;
use crate::ffi::types::{
    CDefsHealthCheck, CDefsMapStringObject, CDefsMapStringObjectElement, CImagetoolImage, CImagetoolImageUid,
    COciImageSpec, COciImageSpecConfig, COciImageSpecHistoryElement, COciImageSpecRootfs,
};
use crate::image::ImageSummary;
use crate::spec::config::{HealthCheck, History, ImageConfig, RootFs, RunConfig};

/// An image with its config.
pub(crate) fn image(summary: &ImageSummary, config: &ImageConfig) -> Result<CBox<CImagetoolImage>> {
    let mut boxed = CBox::<CImagetoolImage>::zeroed()?;
    let out = &mut *boxed;
    out.id = cmem::text(&summary.id)?;
    cmem::set_texts(&mut out.repo_tags, &mut out.repo_tags_len, &summary.repo_tags)?;
    cmem::set_texts(&mut out.repo_digests, &mut out.repo_digests_len, &summary.repo_digests)?;
    out.top_layer = cmem::optional_text(summary.top_layer.as_deref())?;
    out.size = summary.size;
    out.created = cmem::optional_text(summary.created.as_deref())?;
    out.loaded = cmem::optional_text(summary.loaded.as_deref())?;
    if let Some(uid) = summary.uid {
        let mut value = CBox::<CImagetoolImageUid>::zeroed()?;
        value.value = uid;
        out.uid = value.into_raw();
    }
    out.username = cmem::optional_text(summary.username.as_deref())?;
    out.spec = spec(config)?.into_raw();
    let check = config.config.as_ref().and_then(|config| config.healthcheck.as_ref());
    if let Some(check) = check.filter(|check| !check.test.is_empty()) {
        out.healthcheck = health_check(check)?.into_raw();
    }
    Ok(boxed)
}

fn spec(config: &ImageConfig) -> Result<CBox<COciImageSpec>> {
    let mut boxed = CBox::<COciImageSpec>::zeroed()?;
    let out = &mut *boxed;
    out.created = cmem::optional_text(config.created.as_deref())?;
    out.author = cmem::optional_text(config.author.as_deref())?;
    out.architecture = cmem::text(&config.architecture)?;
    out.os = cmem::text(&config.os)?;
    if let Some(run) = &config.config {
        out.config = run_config(run)?.into_raw();
    }
    out.rootfs = rootfs(&config.rootfs)?.into_raw();
    if !config.history.is_empty() {
        cmem::set_pointers(&mut out.history, &mut out.history_len, &config.history, history)?;
    }
    Ok(boxed)
}

fn run_config(config: &RunConfig) -> Result<CBox<COciImageSpecConfig>> {
    let mut boxed = CBox::<COciImageSpecConfig>::zeroed()?;
    let out = &mut *boxed;
    out.user = cmem::optional_text(config.user.as_deref())?;
    if let Some(ports) = &config.exposed_ports {
        out.exposed_ports = set(ports)?.into_raw();
    }
    cmem::set_texts(&mut out.env, &mut out.env_len, &config.env)?;
    cmem::set_texts(&mut out.entrypoint, &mut out.entrypoint_len, &config.entrypoint)?;
    cmem::set_texts(&mut out.cmd, &mut out.cmd_len, &config.cmd)?;
    if let Some(volumes) = &config.volumes {
        out.volumes = set(volumes)?.into_raw();
    }
    out.working_dir = cmem::optional_text(config.working_dir.as_deref())?;
    if let Some(labels) = &config.labels {
        out.labels = out::texts(labels)?.into_raw();
    }
    out.stop_signal = cmem::optional_text(config.stop_signal.as_deref())?;
    if let Some(check) = &config.healthcheck {
        out.healthcheck = health_check(check)?.into_raw();
    }
    Ok(boxed)
}

fn rootfs(rootfs: &RootFs) -> Result<CBox<COciImageSpecRootfs>> {
    let mut boxed = CBox::<COciImageSpecRootfs>::zeroed()?;
    let out = &mut *boxed;
    cmem::set_texts(&mut out.diff_ids, &mut out.diff_ids_len, &rootfs.diff_ids)?;
    out.r#type = cmem::text(&rootfs.kind)?;
    Ok(boxed)
}

fn history(history: &History) -> Result<CBox<COciImageSpecHistoryElement>> {
    let mut out = CBox::<COciImageSpecHistoryElement>::zeroed()?;
    out.created = cmem::optional_text(history.created.as_deref())?;
    out.author = cmem::optional_text(history.author.as_deref())?;
    out.created_by = cmem::optional_text(history.created_by.as_deref())?;
    out.comment = cmem::optional_text(history.comment.as_deref())?;
    out.empty_layer = history.empty_layer;
    Ok(out)
}

fn health_check(check: &HealthCheck) -> Result<CBox<CDefsHealthCheck>> {
    let mut boxed = CBox::<CDefsHealthCheck>::zeroed()?;
    let out = &mut *boxed;
    cmem::set_texts(&mut out.test, &mut out.test_len, &check.test)?;
    out.interval = check.interval;
    out.timeout = check.timeout;
    out.start_period = check.start_period;
    out.retries = check.retries;
    out.exit_on_unhealthy = check.exit_on_unhealthy;
    Ok(boxed)
}

/// A set of texts as a map whose values hold nothing.
fn set(keys: &[String]) -> Result<CBox<CDefsMapStringObject>> {
    let mut boxed = CBox::<CDefsMapStringObject>::zeroed()?;
    let out = &mut *boxed;
    // The length counts both arrays: it is set when one of them is NULL or whole.
    let (array, len) = cmem::texts(keys)?;
    out.keys = array;
    out.len = len;
    out.values = cmem::pointers(keys, |_| CBox::<CDefsMapStringObjectElement>::zeroed())?;
    Ok(boxed)
}
