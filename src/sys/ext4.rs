// SPDX-License-Identifier: MulanPSL-2.0
//! The ext4 file system on a block device: made by its program, looked at here, grown by the kernel.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::Dir;
use crate::units::Bytes;

/// Where the superblock lies, and how much of it is read.
const SUPERBLOCK: u64 = 1024;
const LENGTH: usize = 1024;
/// Offsets in it (`struct ext4_super_block`).
const BLOCKS_LOW: usize = 0x04;
const LOG_BLOCK_SIZE: usize = 0x18;
const MAGIC: usize = 0x38;
const INCOMPATIBLE: usize = 0x60;
const UUID: usize = 0x68;
const BLOCKS_HIGH: usize = 0x150;
const IS_EXT4: u16 = 0xef53;
/// `EXT4_FEATURE_INCOMPAT_64BIT`
const HAS_HIGH: u32 = 0x80;
/// Largest block size is 64 KiB.
const MOST_LOG: u32 = 6;

/// `EXT4_IOC_RESIZE_FS`: `_IOW('f', 16, __u64)`, the number of blocks it is to have.
const RESIZE: libc::Ioctl = 0x4008_6610;

/// Where the program is when the search path of a daemon leaves it out.
const PROGRAMS: [&str; 3] = ["mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"];
/// Tables are written at once: done later by the kernel, each snapshot would do it anew and take the room for it.
const EXTENDED: &str = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";

/// What the superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// UUID in its usual form.
    pub uuid: String,
    /// Size of the file system.
    pub size: Bytes,
    /// Size of a block.
    pub block: Bytes,
}

/// Makes a file system on a device, with these arguments of `mkfs.ext4` before the device, each one argument.
pub fn make(device: &Path, arguments: &[String]) -> Result<()> {
    let doing = || format!("make an ext4 file system on {}", device.display());
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.args(["-E", EXTENDED]).args(arguments).arg(device).stdin(Stdio::null());
        return match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let message = format!("mkfs.ext4 ended with {}: {}", output.status, said.trim());
                Err(Error::new(ErrorKind::Os(libc::EIO), message).context(doing()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            // The process takes no notice of its children: nobody knows how it ended, but what it made can be seen.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => superblock(device).map(drop),
            Err(error) => Err(error).during(doing),
        };
    }
    let message = "mkfs.ext4 is not to be found: install e2fsprogs";
    Err(Error::new(ErrorKind::Unsupported, message).context(doing()))
}

/// Reads the superblock of a device; anything but ext2, ext3, ext4: `Corrupt`.
pub fn superblock(device: &Path) -> Result<Superblock> {
    let doing = || format!("read the ext4 superblock of {}", device.display());
    let mut content = [0u8; LENGTH];
    let file = File::open(device).during(doing)?;
    file.read_exact_at(&mut content, SUPERBLOCK).during(doing)?;
    parse(&content).during(doing)
}

fn parse(content: &[u8; LENGTH]) -> Result<Superblock> {
    let short =
        |at: usize| content.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes);
    let long = |at: usize| {
        let bytes = content.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    if short(MAGIC) != Some(IS_EXT4) {
        return Err(Error::corrupt("it is not an ext4 file system"));
    }
    let log = long(LOG_BLOCK_SIZE);
    if log > MOST_LOG {
        return Err(Error::corrupt(format!("a block size of 2^{log} KiB")));
    }
    let high = if long(INCOMPATIBLE) & HAS_HIGH != 0 { long(BLOCKS_HIGH) } else { 0 };
    let blocks = u64::from(high) << 32 | u64::from(long(BLOCKS_LOW));
    let block = 1024u64 << log;
    let size = blocks.checked_mul(block).ok_or_else(|| Error::corrupt(format!("{blocks} blocks")))?;
    let mut uuid = String::with_capacity(36);
    for (number, byte) in content.iter().skip(UUID).take(16).enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            uuid.push('-');
        }
        uuid.push_str(&format!("{byte:02x}"));
    }
    Ok(Superblock { uuid, size: Bytes(size), block: Bytes(block) })
}

/// Grows a mounted file system to `blocks` blocks; `root` is any of its directories. Durable when it returns, and
/// consistent at any moment.
pub fn grow(root: &Dir, blocks: u64) -> Result<()> {
    // SAFETY: the call reads one u64 from a pointer that is valid for its whole length.
    let result = unsafe {
        use std::os::fd::AsFd;
        libc::ioctl(root.as_fd().as_raw_fd(), RESIZE, &raw const blocks)
    };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error())
            .during(|| format!("grow the file system of {} to {blocks} blocks", root.path().display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::TestRoot;

    #[test]
    fn a_superblock_says_what_mkfs_was_told() {
        let root = TestRoot::in_memory("superblock");
        let image = root.join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let error = superblock(&image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report());
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        for (block, feature) in [(1024, "^64bit"), (4096, "64bit")] {
            let arguments =
                ["-q", "-F", "-U", uuid, "-O", feature, "-b", &block.to_string()].map(str::to_owned);
            make(&image, &arguments).unwrap();
            let found = superblock(&image).unwrap();
            assert_eq!(found, Superblock { uuid: uuid.into(), size: Bytes(16 << 20), block: Bytes(block) });
        }
        let error = make(&root.join("absent"), &["-q".to_owned()]).unwrap_err();
        assert!(error.report().contains("mkfs.ext4 ended with"), "{}", error.report());
    }

    #[test]
    fn odd_superblocks_are_refused_or_bounded() {
        let mut content = [0xffu8; LENGTH];
        assert_eq!(parse(&content).unwrap_err().kind(), ErrorKind::Corrupt);
        content[MAGIC..MAGIC + 2].copy_from_slice(&IS_EXT4.to_le_bytes());
        assert_eq!(parse(&content).unwrap_err().kind(), ErrorKind::Corrupt);
        content[LOG_BLOCK_SIZE..LOG_BLOCK_SIZE + 4].copy_from_slice(&6u32.to_le_bytes());
        assert_eq!(parse(&content).unwrap_err().kind(), ErrorKind::Corrupt, "more bytes than can be counted");
        assert!(superblock(Path::new("/dev/null")).is_err());
    }
}
