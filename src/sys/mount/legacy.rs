// SPDX-License-Identifier: MulanPSL-2.0
//! Overlays through `mount(2)`.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::mount::mount_change;

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::at::proc_path;
use crate::sys::mount::options::Options;
use crate::sys::mount::{Overlay, name_below};

/// Mounts with absolute paths if the option string is short enough, else with paths relative to `home`.
pub(super) fn mount(overlay: &Overlay<'_>, options: &Options, target: &Path) -> Result<()> {
    // The kernel copies one page and keeps its last byte for the end.
    let room = page_size().saturating_sub(1);
    let absolute = option_string(overlay, options, Some(overlay.home.path()));
    if absolute.len() <= room {
        mount_with(overlay, options, target, &absolute)?;
    } else {
        let relative = option_string(overlay, options, None);
        if relative.len() > room {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "{} lower directories make {} bytes of mount options, mount(2) takes {room}",
                    overlay.lowers.len(),
                    relative.len()
                ),
            ));
        }
        in_directory(overlay, || mount_with(overlay, options, target, &relative))?;
    }
    for flags in &options.propagation {
        let path = overlay.home.path().join(target);
        if let Err(error) = mount_change(&path, *flags) {
            log::warn!("set propagation of {}: {error}", path.display());
        }
    }
    Ok(())
}

fn mount_with(overlay: &Overlay<'_>, options: &Options, target: &Path, data: &OsStr) -> Result<()> {
    let data = CString::new(data.as_bytes()).map_err(|_| Error::invalid("a mount option contains NUL"))?;
    let target = name_below(overlay.home.as_fd(), target).during(|| "open the mount point")?;
    // Through its descriptor: links on the way are not followed a second time.
    let target = proc_path(target.as_fd(), None);
    rustix::mount::mount("overlay", target, "overlay", options.flags, data.as_c_str())
        .during(|| format!("mount(2) with options {}", shorten(&data)))
}

/// Runs `action` in a thread of its own whose current directory is `home`: the process keeps its own.
fn in_directory(overlay: &Overlay<'_>, action: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("overlay-mount".to_owned()).spawn_scoped(scope, || {
            // SAFETY: only the table of current directory, root and umask is unshared, no descriptors or memory; the
            // thread ends after `action`, nothing else ever runs on it.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }
                .during(|| "give a thread its own current directory")?;
            rustix::process::fchdir(overlay.home).during(|| "enter the driver's home")?;
            action()
        });
        let ended = worker.during(|| "start a thread")?.join();
        ended.unwrap_or_else(|_| Err(Error::new(ErrorKind::Os(libc::EIO), "the mounting thread failed")))
    })
}

/// The options of the mount, the caller's first, as the reference orders them. Without `home`, paths are relative
/// to it.
fn option_string(overlay: &Overlay<'_>, options: &Options, home: Option<&Path>) -> OsString {
    let mut text: Vec<u8> = Vec::new();
    let mut add = |key: &str, value: Option<&[u8]>| {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            text.push(b'=');
            text.extend_from_slice(value);
        }
    };
    for (key, value) in &options.rest {
        let quoted = value.as_ref().map(|value| match value.contains(',') {
            true => format!("\"{value}\""),
            false => value.clone(),
        });
        add(key, quoted.as_ref().map(|value| value.as_bytes()));
    }
    add("lowerdir", Some(joined_lowers(overlay, home).as_bytes()));
    for (key, directory) in [("upperdir", &overlay.upper), ("workdir", &overlay.work)] {
        if let Some(directory) = directory {
            add(key, Some(escape(absolute(directory, home).as_ref(), b"\\,").as_bytes()));
        }
    }
    if let Some(label) = &overlay.label {
        add("context", Some(format!("\"{label}\"").as_bytes()));
    }
    OsString::from_vec(text)
}

/// The lowers in one string.
pub(super) fn joined_lowers(overlay: &Overlay<'_>, home: Option<&Path>) -> OsString {
    let lowers = overlay.lowers.iter().map(|lower| escape(absolute(lower, home).as_ref(), b"\\:,"));
    lowers.collect::<Vec<_>>().join(OsStr::new(":"))
}

fn absolute(path: &Path, home: Option<&Path>) -> OsString {
    home.map_or_else(|| path.to_owned(), |home| home.join(path)).into_os_string()
}

/// Puts a backslash before each of `special`.
pub(super) fn escape(text: &OsStr, special: &[u8]) -> OsString {
    let mut escaped = Vec::with_capacity(text.len());
    for byte in text.as_bytes() {
        if special.contains(byte) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // The smallest of any machine if it should not be known.
    usize::try_from(size).unwrap_or(4096)
}

fn shorten(data: &CString) -> String {
    const SHOWN: usize = 400;
    let text = data.to_string_lossy();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}
