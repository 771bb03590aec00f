// SPDX-License-Identifier: MulanPSL-2.0
//! Names of file systems.

use std::os::fd::BorrowedFd;

use crate::error::{During, Result};

/// Numbers of the kernel's `linux/magic.h` and of out-of-tree file systems, with the names that the reference
/// reports as "Backing Filesystem".
const NAMES: [(u32, &str); 20] = [
    (0x6175_6673, "aufs"),
    (0x9123_683e, "btrfs"),
    (0x28cd_3d45, "cramfs"),
    (0x0000_f15f, "ecryptfs"),
    (0x0000_ef53, "extfs"),
    (0xf2f5_2010, "f2fs"),
    (0x4750_4653, "gpfs"),
    (0x0000_72b6, "jffs2"),
    (0x3153_464a, "jfs"),
    (0x0000_6969, "nfs"),
    (0x794c_7630, "overlayfs"),
    (0x8584_58f6, "ramfs"),
    (0x5265_4973, "reiserfs"),
    (0x0000_517b, "smb"),
    (0x7371_7368, "squashfs"),
    (0x0102_1994, "tmpfs"),
    (0x0000_0000, "unsupported"),
    (0xa501_fcf5, "vxfs"),
    (0x5846_5342, "xfs"),
    (0x2fc1_2fc1, "zfs"),
];

/// Name of a file system by its magic number: the reference's table (`extfs`, `xfs`, `tmpfs`, `overlayfs`, …),
/// `None` for a number not in it.
pub fn filesystem_name(dir: BorrowedFd<'_>) -> Result<Option<&'static str>> {
    let stat = rustix::fs::fstatfs(dir).during(|| "ask for the file system type")?;
    Ok(name_of(magic(stat.f_type)))
}

/// The field is signed on some machines and wider than the number on others.
fn magic(field: impl Into<i64>) -> u32 {
    u32::try_from(field.into() & 0xffff_ffff).unwrap_or(u32::MAX)
}

fn name_of(magic: u32) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn names_are_those_of_the_reference() {
        assert_eq!(name_of(0xef53), Some("extfs"));
        assert_eq!(name_of(0x9123_683e), Some("btrfs"));
        assert_eq!(name_of(0x794c_7630), Some("overlayfs"));
        assert_eq!(name_of(0x6573_5546), None, "fuse is not in the table");
        let names: std::collections::BTreeSet<_> = NAMES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), NAMES.len());
    }

    #[test]
    fn the_sign_of_the_field_does_not_matter() {
        assert_eq!(magic(0x9123_683e_i64), 0x9123_683e);
        assert_eq!(magic(i32::from_ne_bytes(0x9123_683e_u32.to_ne_bytes())), 0x9123_683e);
    }

    #[test]
    fn proc_has_no_name_and_a_real_directory_has_the_one_the_kernel_says() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert_eq!(filesystem_name(proc.as_fd()).unwrap(), None);
        let shm = std::fs::File::open("/dev/shm").unwrap();
        assert_eq!(filesystem_name(shm.as_fd()).unwrap(), Some("tmpfs"));
    }
}
