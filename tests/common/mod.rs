// SPDX-License-Identifier: MulanPSL-2.0
//! What tests need of the machine: a folder of their own, a file system of their own, the right to mount.
//!
//! Included by the unit tests as `crate::sys::testing` and by the integration tests as `mod common`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether this test may mount. Says why not; a continuous-integration run must not skip.
pub fn need_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs root and must not be skipped here");
    eprintln!("skipped: needs root");
    false
}

/// A new empty directory; when dropped, also by a panic, everything mounted below it is unmounted and it is removed.
#[derive(Debug)]
pub struct TestRoot {
    path: PathBuf,
}

impl TestRoot {
    /// Below the system's directory for temporary files.
    pub fn new(tag: &str) -> TestRoot {
        TestRoot::below(&std::env::temp_dir(), tag)
    }

    /// On tmpfs if there is one: no slow fsync. tmpfs knows no reflinks and keeps nothing.
    pub fn in_memory(tag: &str) -> TestRoot {
        TestRoot::below(&memory(), tag)
    }

    /// Below a directory of the test's choice.
    pub fn below(parent: &Path, tag: &str) -> TestRoot {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("isula-storage-{tag}-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return TestRoot { path },
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("make {}: {error}", path.display()),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        unmount_below(&self.path);
        if let Some(mounted) = mounts_below(&self.path).first() {
            eprintln!("{} is still mounted; left alone", mounted.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}

/// A fresh ext4 file system in an image file in memory, mounted until dropped.
#[derive(Debug)]
pub struct LoopExt4 {
    root: TestRoot,
}

/// Makes and mounts an ext4 of `size` bytes (4 MiB at least). Needs root.
pub fn loop_ext4(size: u64) -> LoopExt4 {
    let root = TestRoot::in_memory("ext4");
    let image = root.join("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(size)).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let loop_fs = LoopExt4 { root };
    std::fs::create_dir(loop_fs.path()).unwrap();
    loop_fs.mount();
    std::fs::remove_dir(loop_fs.path().join("lost+found")).unwrap();
    loop_fs
}

impl LoopExt4 {
    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// A path below it.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path().join(path)
    }

    /// Unmounts and mounts again, as after a restart of the machine. Nothing may be open below.
    pub fn remount(&self) {
        use rustix::mount::{UnmountFlags, unmount};
        // A program that another test starts has all descriptors for a moment, between fork and exec.
        let mut tries = 0..2000;
        while let Err(error) = unmount(self.path(), UnmountFlags::NOFOLLOW) {
            assert!(error == rustix::io::Errno::BUSY && tries.next().is_some(), "unmount: {error}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.mount();
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.root.join("image")).arg(self.path()));
    }
}

/// Runs a tool of the machine and expects it to succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {text}", output.status);
}

/// Mount points at or below `path`, innermost first.
pub fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|mount| mount.starts_with(path))
        .collect();
    found.reverse();
    found
}

fn unmount_below(path: &Path) {
    use rustix::mount::{UnmountFlags, unmount};
    for mount in mounts_below(path) {
        if let Err(error) = unmount(&mount, UnmountFlags::NOFOLLOW)
            .or_else(|_| unmount(&mount, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH))
        {
            eprintln!("unmount {}: {error}", mount.display());
        }
    }
}

/// The mount table writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    OsString::from_vec(bytes)
}

fn memory() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { shm } else { std::env::temp_dir() }
}
