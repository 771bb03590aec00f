// SPDX-License-Identifier: MulanPSL-2.0
//! Overlays through `fsopen`, `fsconfig`, `fsmount`, `move_mount`.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::Dir;
use crate::sys::fs::at::proc_path;
use crate::sys::mount::options::Options;
use crate::sys::mount::{Overlay, legacy, name_below};

/// Longest value that `fsconfig` takes as a string.
const STRING_MAX: usize = 255;

/// A message of the kernel is at most this long; several are read one by one.
const MESSAGE_MAX: usize = 8192;

/// `Unsupported` when this kernel cannot do it this way, whatever the reason; nothing is mounted then.
pub(super) fn try_mount(overlay: &Overlay<'_>, options: &Options, target: &Path) -> Result<()> {
    require()?;
    mount(overlay, options, target)
}

/// The same on a kernel that is known to take lower directories one by one.
pub(super) fn mount(overlay: &Overlay<'_>, options: &Options, target: &Path) -> Result<()> {
    let target = mount_point(overlay.home.as_fd(), target).during(|| "open the mount point")?;
    let mounted = make(overlay, options)?;
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mounted, c"", &target, c"", by_descriptor).during(|| "attach the overlay")?;
    // The mount point is covered now; the descriptor of the mount itself is what propagation is set on.
    for flags in &options.propagation {
        let path = proc_path(mounted.as_fd(), None);
        if let Err(error) = rustix::mount::mount_change(path, *flags) {
            let path = overlay.home.path();
            log::warn!("set propagation of an overlay below {}: {error}", path.display());
        }
    }
    Ok(())
}

/// An overlay that is attached nowhere; it goes with its descriptor. `Unsupported` as for [`try_mount`].
pub(super) fn detached(overlay: &Overlay<'_>, options: &Options) -> Result<OwnedFd> {
    require()?;
    make(overlay, options)
}

fn require() -> Result<()> {
    if !takes_lowers_one_by_one()? {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this kernel takes lower directories only in one string",
        ));
    }
    Ok(())
}

fn make(overlay: &Overlay<'_>, options: &Options) -> Result<OwnedFd> {
    let mut context = Context::open()?;
    // The device that mount tables show; without it they say `none`, where the reference's mounts say `overlay`.
    context.set_string("source", "overlay".as_ref())?;
    let mut below = Below::new(overlay.home);
    for lower in &overlay.lowers {
        context.set_directory(c"lowerdir+", &mut below, lower, Links::Follow)?;
    }
    for (key, directory) in [(c"upperdir", &overlay.upper), (c"workdir", &overlay.work)] {
        if let Some(directory) = directory {
            context.set_directory(key, &mut below, directory, Links::Refuse)?;
        }
    }
    for (key, value) in &options.rest {
        match value {
            Some(value) => context.set_string(key, value.as_ref())?,
            None => context.set_flag(key)?,
        }
    }
    if let Some(label) = &overlay.label {
        context.set_string("context", label.as_ref())?;
    }
    options.superblock.iter().try_for_each(|word| context.set_flag(word))?;
    let created = fsconfig_create(context.fd.as_fd());
    context.explain(created, || "create the overlay".to_owned())?;
    let mounted = fsmount(context.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, options.attributes);
    context.explain(mounted, || "make a mount of the overlay".to_owned())
}

/// Whether this kernel takes lower directories one by one (Linux 6.7), found out with a context that is thrown away.
pub(super) fn takes_lowers_one_by_one() -> Result<bool> {
    // Before 6.5 overlayfs had no parser of its own for this interface: anything is taken and joined to one string, to
    // fail when the overlay is created.
    let trial = Context::open()?;
    if fsconfig_set_flag(trial.fd.as_fd(), "isula_storage_probe").is_ok() {
        return Ok(false);
    }
    let trial = Context::open()?;
    match fsconfig_set_string(trial.fd.as_fd(), "lowerdir+", "/") {
        Err(Errno::INVAL) => {
            let said = trial.messages().join(" ").to_ascii_lowercase();
            // Any other complaint is about the root directory, not about the option.
            Ok(!said.contains("unknown parameter"))
        }
        _ => Ok(true),
    }
}

/// Whether the last component may be a symbolic link that stays below the driver's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// Lowers are named by the short links in `l/`.
    Follow,
    /// Nothing else is.
    Refuse,
}

/// Absolute paths below the home, one after the other in one buffer.
struct Below<'a> {
    home: &'a Dir,
    path: Vec<u8>,
}

impl<'a> Below<'a> {
    fn new(home: &'a Dir) -> Below<'a> {
        Below { home, path: Vec::with_capacity(STRING_MAX + 1) }
    }

    /// The path of a directory, with backslashes doubled where `escaped`; `None` where it is too long.
    fn path(&mut self, directory: &Path, escaped: bool) -> Option<&CStr> {
        self.path.clear();
        for part in [self.home.path(), directory] {
            if !self.path.is_empty() && !self.path.ends_with(b"/") {
                self.path.push(b'/');
            }
            match part.as_os_str() {
                part if escaped => self.path.extend(legacy::escape(part, b"\\").as_bytes()),
                part => self.path.extend(part.as_bytes()),
            }
        }
        if self.path.len() > STRING_MAX {
            return None;
        }
        self.path.push(0);
        CStr::from_bytes_with_nul(&self.path).ok()
    }
}

struct Context {
    fd: OwnedFd,
}

impl Context {
    fn open() -> Result<Context> {
        match fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Context { fd }),
            Err(error @ (Errno::NOSYS | Errno::PERM)) => {
                // Some seccomp filters answer EPERM for what they do not know; mount(2) will tell.
                Err(Error::with_source(ErrorKind::Unsupported, "fsopen is not to be had", error))
            }
            Err(Errno::NODEV) => {
                let message = "this kernel has no overlay file system";
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            Err(error) => Err(error).during(|| "open an overlay context"),
        }
    }

    fn set_flag(&mut self, key: &str) -> Result<()> {
        let set = fsconfig_set_flag(self.fd.as_fd(), key);
        self.explain(set, || format!("set mount option {key:?}"))
    }

    fn set_string(&mut self, key: &str, value: &OsStr) -> Result<()> {
        let set = fsconfig_set_string(self.fd.as_fd(), key, value);
        self.explain(set, || format!("set mount option {key:?} to {value:?}"))
    }

    /// Names a directory by its absolute path, which is what the mount table will show, if that fits; else by a
    /// descriptor.
    fn set_directory(
        &mut self,
        key: &CStr,
        below: &mut Below<'_>,
        directory: &Path,
        links: Links,
    ) -> Result<()> {
        let home = below.home;
        let doing = || format!("set mount option {key:?} to {}", home.path().join(directory).display());
        // The kernel takes backslashes out of the upper and the work directory.
        if let Some(path) = below.path(directory, links == Links::Refuse) {
            let set = fsconfig_set_string(self.fd.as_fd(), key, path);
            return self.explain(set, doing);
        }
        let opened = open_below(home.as_fd(), directory, links).during(doing)?;
        match fsconfig_set_fd(self.fd.as_fd(), key, &opened) {
            // Overlays take descriptors since Linux 6.13.
            Err(Errno::INVAL) => {
                self.messages();
                self.set_opened(key, &opened).during(doing)
            }
            other => self.explain(other, doing),
        }
    }

    /// Names a directory by a path that leads to its descriptor; the kernel resolves it in this call.
    fn set_opened(&mut self, key: &CStr, directory: &OwnedFd) -> Result<()> {
        let path = proc_path(directory.as_fd(), None);
        let set = fsconfig_set_string(self.fd.as_fd(), key, &path);
        self.explain(set, || format!("set mount option {key:?} to {path:?}"))
    }

    /// Puts what the kernel has to say into the error.
    fn explain<T>(&self, result: rustix::io::Result<T>, doing: impl FnOnce() -> String) -> Result<T> {
        result.map_err(|errno| {
            let said = self.messages();
            let error: Result<()> = Err(errno).during(doing);
            match error {
                Err(error) if said.is_empty() => error,
                Err(error) => Error::new(error.kind(), format!("{} ({errno})", said.join("; ")))
                    .context(error.to_string()),
                Ok(()) => Error::new(ErrorKind::from_errno(errno.raw_os_error()), said.join("; ")),
            }
        })
    }

    /// Messages of the kernel since the last call, without their severity.
    fn messages(&self) -> Vec<String> {
        let mut said = Vec::new();
        let mut buffer = vec![0u8; MESSAGE_MAX];
        while let Ok(count) = rustix::io::read(&self.fd, &mut buffer) {
            let text = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).trim().to_owned();
            let text = match text.split_once(' ') {
                Some(("e" | "w" | "i", rest)) => rest.to_owned(),
                _ => text,
            };
            if text.is_empty() {
                break;
            }
            said.push(text);
        }
        said
    }
}

/// Opens a directory below `home` for reading, for the kernel takes no `O_PATH` descriptors here.
/// A descriptor that only names the mount point; no symbolic link is followed on the way.
fn mount_point(home: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(home, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::INTR) => name_below(home, path),
        opened => opened,
    }
}

fn open_below(home: BorrowedFd<'_>, path: &Path, links: Links) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refuse {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    loop {
        match openat2(home, path, flags, Mode::empty(), resolve) {
            // A rename somewhere on the machine while `..` of a link was resolved.
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS | Errno::PERM) => return openat(home, path, flags, Mode::empty()),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{TestRoot, need_root};

    /// What kernels from 6.7 to 6.12 need for long paths.
    #[test]
    fn directories_can_be_named_through_their_descriptors() {
        if !need_root() || !takes_lowers_one_by_one().unwrap() {
            return;
        }
        let root = TestRoot::in_memory("fsapi");
        let home = Dir::open(root.path()).unwrap();
        let mut context = Context::open().unwrap();
        for (name, key) in [("a", c"lowerdir+"), ("b", c"lowerdir+"), ("u", c"upperdir"), ("w", c"workdir")] {
            home.create_dir(name, 0o755).unwrap();
            let opened = open_below(home.as_fd(), Path::new(name), Links::Refuse).unwrap();
            context.set_opened(key, &opened).unwrap();
        }
        fsconfig_create(context.fd.as_fd()).unwrap();
    }

    #[test]
    fn lowers_may_be_links_that_stay_in_the_home() {
        let root = TestRoot::in_memory("fsapi");
        let home = Dir::open(root.path()).unwrap();
        home.create_dir("l", 0o700).unwrap();
        home.create_dir("layer", 0o700).unwrap();
        for (name, target) in
            [("good", "../layer"), ("out", "../.."), ("absolute", "/etc"), ("magic", "/proc/self/root")]
        {
            home.open_dir("l").unwrap().symlink(Path::new(target), name).unwrap();
            let path = Path::new("l").join(name);
            assert_eq!(open_below(home.as_fd(), &path, Links::Follow).is_ok(), name == "good", "{name}");
            assert!(open_below(home.as_fd(), &path, Links::Refuse).is_err(), "{name}");
        }
    }
}
