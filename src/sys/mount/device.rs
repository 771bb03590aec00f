// SPDX-License-Identifier: MulanPSL-2.0
//! File systems on block devices: attached to a directory, or attached nowhere.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount_change, mount_remount,
};

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::Dir;
use crate::sys::mount::options::{self, Options};

/// A file system on a block device.
#[derive(Debug, Clone)]
pub struct Device<'a> {
    /// The device's node.
    pub node: &'a Path,
    /// Kind of file system: `ext4`.
    pub filesystem: &'a str,
    /// Options as for mount(8), separated by commas.
    pub options: &'a [String],
    /// SELinux label of the mount (`context=`), or none.
    pub label: Option<&'a str>,
}

/// Mounts it, writable unless the options say otherwise, on the directory `target`.
pub fn mount_device(device: &Device<'_>, target: &Dir) -> Result<()> {
    let doing = || format!("mount {} on {}", device.node.display(), target.path().display());
    let parsed = options::parse(device.options).during(doing)?;
    let text = text_of(&parsed, device.label);
    let data =
        CString::new(text).map_err(|_| Error::invalid("a mount option contains NUL").context(doing()))?;
    // A path through the descriptor is not followed a second time.
    let place = crate::sys::fs::at::proc_path(target.as_fd(), None);
    rustix::mount::mount(device.node, &place, device.filesystem, parsed.flags, data.as_c_str())
        .during(doing)?;
    for flags in &parsed.propagation {
        if let Err(error) = mount_change(target.path(), *flags) {
            log::warn!("set propagation of {}: {error}", target.path().display());
        }
    }
    Ok(())
}

/// Makes the mount on `target` read-only, not the file system, which may be mounted elsewhere.
pub fn make_read_only(target: &Path) -> Result<()> {
    mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c"")
        .during(|| format!("make the mount on {} read-only", target.display()))
}

/// A file system that is attached nowhere; it is unmounted when this and all that was opened in it is dropped.
#[derive(Debug)]
pub struct Detached {
    root: Dir,
    _mount: Option<OwnedFd>,
}

impl Detached {
    /// Its root.
    pub fn root(&self) -> &Dir {
        &self.root
    }
}

/// Mounts it without a place. `scratch` is an empty directory, which kernels before 5.2 need for a moment; without one they
/// cannot: `Unsupported`.
pub fn open_device(device: &Device<'_>, scratch: Option<&Dir>) -> Result<Detached> {
    let doing = || format!("mount {}", device.node.display());
    let parsed = options::parse(device.options).during(doing)?;
    match (detached(device, &parsed), scratch) {
        (Err(error), Some(scratch)) if error.kind() == ErrorKind::Unsupported => {
            log::debug!("{}; falling back to mount(2)", error.report());
            mount_device(device, scratch)?;
            // Below the mount now.
            let root = Dir::open(scratch.path());
            rustix::mount::unmount(scratch.path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .during(doing)?;
            Ok(Detached { root: root?, _mount: None })
        }
        (opened, _) => opened.during(doing),
    }
}

fn detached(device: &Device<'_>, options: &Options) -> Result<Detached> {
    let context = match fsopen(device.filesystem, FsOpenFlags::FSOPEN_CLOEXEC) {
        // Some seccomp filters answer EPERM for what they do not know; mount(2) will tell.
        Err(error @ (rustix::io::Errno::NOSYS | rustix::io::Errno::PERM)) => {
            return Err(Error::with_source(ErrorKind::Unsupported, "fsopen is not to be had", error));
        }
        opened => opened.during(|| format!("open a context for {}", device.filesystem))?,
    };
    let context = context.as_fd();
    let set = |key: &str, value: &str| {
        fsconfig_set_string(context, key, value).during(|| format!("set mount option {key:?}"))
    };
    let flag = |key: &str| fsconfig_set_flag(context, key).during(|| format!("set mount option {key:?}"));
    let node = device.node.to_str().ok_or_else(|| Error::invalid("the device's name is not text"))?;
    set("source", node)?;
    for (key, value) in &options.rest {
        match value {
            Some(value) => set(key, value)?,
            None => flag(key)?,
        }
    }
    if let Some(label) = device.label {
        set("context", label)?;
    }
    options.superblock.iter().try_for_each(|word| flag(word))?;
    fsconfig_create(context).during(|| "read the file system")?;
    let attributes = options.attributes & !MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).during(|| "make a mount")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(&mount, c".", flags, Mode::empty()).during(|| "open its root")?;
    Ok(Detached { root: Dir::of(root, device.node), _mount: Some(mount) })
}

/// The options that are for the file system, as `mount(2)` takes them.
fn text_of(options: &Options, label: Option<&str>) -> String {
    let words = options.rest.iter().map(|(key, value)| match value {
        Some(value) if value.contains(',') => format!("{key}=\"{value}\""),
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    });
    words.chain(label.map(|label| format!("context=\"{label}\""))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_given_as_mount_2_takes_them() {
        let text = |string: &str, label| text_of(&options::parse(&[string.to_owned()]).unwrap(), label);
        assert_eq!(text("", None), "");
        assert_eq!(text("nodev,noatime,discard,data=ordered", None), "discard,data=ordered");
        assert_eq!(text("discard", Some("u:r:t:s0:c1,c2")), "discard,context=\"u:r:t:s0:c1,c2\"");
        assert_eq!(text("context=\"a:b:c1,c2\"", None), "context=\"a:b:c1,c2\"");
    }
}
