// SPDX-License-Identifier: MulanPSL-2.0
//! Project quotas of the running kernel.
//!
//! `quotactl_fd` (Linux 5.14) asks by any descriptor on the file system. Before that a device node is needed, which does
//! not work on a mount with `nodev`. Both file systems understand the generic calls and set the same limit by them.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use rustix::ioctl::opcode;

use super::{Project, Quotas, Record, State};
use crate::error::{During, Error, Result};
use crate::sys::fs::Dir;
use crate::units::{Bytes, Inodes, Usage};

/// `PRJQUOTA`
const OF_PROJECTS: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
/// `XQM_CMD(5)`, which ext4 understands as well.
const Q_XGETQSTAT: u32 = 0x5805;
/// `FS_QUOTA_PDQ_ACCT` and `FS_QUOTA_PDQ_ENFD`
const ACCOUNTED: u16 = 1 << 4;
const ENFORCED: u16 = 1 << 5;
/// `QIF_LIMITS`: the limits of blocks and of inodes are given.
const ALL_LIMITS: u32 = 1 | 4;
/// `QIF_BLIMITS`: only the limits of blocks are given.
const BLOCK_LIMITS: u32 = 1;
/// Unit of limits of blocks.
const KIB: u64 = 1024;
/// `FS_XFLAG_PROJINHERIT`
const INHERIT: u32 = 0x200;

/// `struct fsxattr`
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk`
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Quota {
    block_hard: u64,
    block_soft: u64,
    space: u64,
    inode_hard: u64,
    inode_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fs_quota_stat`, of which only the flags matter.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Status {
    version: i8,
    flags: u16,
    pad: i8,
    rest: [u64; 9],
}

const GET_ATTRIBUTES: libc::Ioctl = opcode::read::<Attributes>(b'X', 31) as libc::Ioctl;
const SET_ATTRIBUTES: libc::Ioctl = opcode::write::<Attributes>(b'X', 32) as libc::Ioctl;

/// The file system that a directory is on.
#[derive(Debug)]
pub struct Kernel {
    dir: Dir,
    /// Path of the device node, where the descriptor will not do.
    node: Option<CString>,
}

impl Kernel {
    /// The file system of `dir`; `node` in it is the node of its device, for kernels that cannot do without.
    pub fn open(dir: &Dir, node: &str) -> Result<Kernel> {
        let by_descriptor = Kernel { dir: dir.try_clone()?, node: None };
        match by_descriptor.state() {
            // Either the kernel does not know the call, or the file system knows no quotas.
            Err(error) if error.errno() == libc::ENOSYS => {}
            Ok(_) | Err(_) => return Ok(by_descriptor),
        }
        let by_node = Kernel::by_node(dir, node)?;
        Ok(if by_node.state().is_ok() { by_node } else { by_descriptor })
    }

    /// The same by the device node alone, which was the only way before Linux 5.14.
    pub fn by_node(dir: &Dir, node: &str) -> Result<Kernel> {
        let dir = dir.try_clone()?;
        // By the descriptor, for what leads to it may be moved.
        let path = CString::new(format!("/proc/self/fd/{}/{node}", dir.as_fd_number()))
            .map_err(|_| Error::invalid(format!("device node {node:?}: it has a NUL byte")))?;
        Ok(Kernel { dir, node: Some(path) })
    }

    /// Asks or tells the file system something. `data` is what this command expects.
    fn quotactl<T>(&self, command: u32, id: u32, data: &mut T) -> io::Result<()> {
        let command = (command << 8) | OF_PROJECTS;
        let data: *mut T = data;
        let result = match &self.node {
            // SAFETY: `quotactl_fd(2)`: the descriptor is open, `data` points to the struct of the command.
            None => unsafe {
                libc::syscall(libc::SYS_quotactl_fd, self.dir.as_fd_number(), command, id, data)
            },
            // SAFETY: `quotactl(2)`: the path is a C string, `data` points to the struct of the command.
            Some(node) => unsafe { libc::syscall(libc::SYS_quotactl, command, node.as_ptr(), id, data) },
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} of the file system of {}", self.dir.path().display())
    }
}

impl Quotas for Kernel {
    fn state(&self) -> Result<State> {
        let mut status = Status { version: 1, ..Status::default() };
        self.quotactl(Q_XGETQSTAT, 0, &mut status).during(|| self.doing("ask for project quotas"))?;
        Ok(State {
            accounted: status.flags & ACCOUNTED != 0,
            enforced: status.flags & ACCOUNTED != 0 && status.flags & ENFORCED != 0,
        })
    }

    fn project(&self, dir: &Dir) -> Result<Project> {
        let attributes =
            attributes(dir).during(|| format!("ask for the project of {}", dir.path().display()))?;
        Ok(Project { id: attributes.project, inherited: attributes.flags & INHERIT != 0 })
    }

    fn set_project(&self, dir: &Dir, project: Project) -> Result<()> {
        let doing = || format!("set project {} of {}", project.id, dir.path().display());
        // The other attributes stay as they are.
        let mut attributes = attributes(dir).during(doing)?;
        attributes.project = project.id;
        attributes.flags =
            if project.inherited { attributes.flags | INHERIT } else { attributes.flags & !INHERIT };
        // SAFETY: the descriptor is open, and the call reads one struct of this layout.
        let result = unsafe { libc::ioctl(dir.as_fd_number(), SET_ATTRIBUTES, &raw const attributes) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).during(doing) }
    }

    fn record(&self, id: u32) -> Result<Record> {
        let mut quota = Quota::default();
        match self.quotactl(Q_GETQUOTA, id, &mut quota) {
            Ok(()) => {}
            // xfs has none for a project that was never used.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Record::default()),
            Err(error) => {
                return Err(error).during(|| self.doing(&format!("ask for the quota of project {id}")));
            }
        }
        let limits = [quota.block_hard, quota.block_soft, quota.inode_hard, quota.inode_soft];
        Ok(Record {
            used: Usage { bytes: Bytes(quota.space), inodes: Inodes(quota.inodes) },
            most: Bytes(quota.block_hard.saturating_mul(KIB)),
            limited: limits.iter().any(|limit| *limit != 0),
        })
    }

    fn set_limit(&self, id: u32, most: Bytes) -> Result<()> {
        let blocks = most.0 / KIB;
        let mut quota =
            Quota { block_hard: blocks, block_soft: blocks, valid: ALL_LIMITS, ..Quota::default() };
        self.quotactl(Q_SETQUOTA, id, &mut quota)
            .during(|| self.doing(&format!("set the quota of project {id}")))
    }

    fn set_bytes(&self, id: u32, most: Bytes) -> Result<()> {
        let mut quota = Quota::default();
        self.quotactl(Q_GETQUOTA, id, &mut quota)
            .during(|| self.doing(&format!("ask for the quota of project {id}")))?;
        quota.block_hard = most.0 / KIB;
        quota.block_soft = quota.block_soft.min(quota.block_hard);
        quota.valid = BLOCK_LIMITS;
        self.quotactl(Q_SETQUOTA, id, &mut quota)
            .during(|| self.doing(&format!("set the quota of project {id}")))
    }
}

fn attributes(dir: &Dir) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the descriptor is open, and the call fills one struct of this layout.
    let result = unsafe { libc::ioctl(dir.as_fd_number(), GET_ATTRIBUTES, &raw mut attributes) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

trait AsFdNumber {
    fn as_fd_number(&self) -> i32;
}

impl AsFdNumber for Dir {
    fn as_fd_number(&self) -> i32 {
        use std::os::fd::AsFd;
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::TestRoot;

    #[test]
    fn what_the_kernel_is_given_has_its_layout() {
        assert_eq!(size_of::<Attributes>(), 28);
        assert_eq!(size_of::<Quota>(), 72);
        assert_eq!(size_of::<Status>(), 80);
        assert_eq!(std::mem::offset_of!(Status, flags), 2);
        if cfg!(target_arch = "x86_64") {
            assert_eq!((GET_ATTRIBUTES, SET_ATTRIBUTES), (0x801c_581f, 0x401c_5820));
        }
    }

    #[test]
    fn a_file_system_without_projects_says_so() {
        let root = TestRoot::in_memory("quota");
        let dir = Dir::open(root.path()).unwrap();
        let kernel = Kernel::open(&dir, "backingFsBlockDev").unwrap();
        // Not root: EPERM comes first.
        let errno = kernel.state().unwrap_err().errno();
        assert!(matches!(errno, libc::ENOSYS | libc::EPERM), "{errno}");
        let errno = kernel.record(1).unwrap_err().errno();
        assert!(matches!(errno, libc::ENOSYS | libc::EPERM | libc::ESRCH), "{errno}");
        let by_node = Kernel::by_node(&dir, "backingFsBlockDev").unwrap();
        assert_eq!(by_node.state().unwrap_err().errno(), libc::ENOENT);
    }
}
