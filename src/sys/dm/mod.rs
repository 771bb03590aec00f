// SPDX-License-Identifier: MulanPSL-2.0
//! Device-mapper: the `ioctl` interface of `/dev/mapper/control`, without libdevmapper.
//!
//! [`Dm`] is all that a driver needs of it, [`Kernel`] the real one. Errors have the kernel's own errno:
//!
//! | call | errno |
//! |---|---|
//! | message `create_thin`, `create_snap` with an id in use | EEXIST |
//! | message `create_snap` of an unknown origin, `delete` of an unknown id, load of a thin device with an unknown id | ENODATA |
//! | message `delete` of an active device, removal of an open one, a name that is taken | EBUSY |
//! | anything with a name that is not there | ENXIO |
//! | message `set_transaction_id` with another old id | EINVAL |
//!
//! Nodes in `/dev/mapper` are made and removed by udevd where it runs: then a call that changes one waits until it has
//! (see `cookie`). Where it does not run, or has not done it, they are made and removed here.

mod cookie;
mod kernel;

#[cfg(test)]
pub(crate) mod fake;

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};

pub use kernel::Kernel;

/// Longest name of a device in bytes (`DM_NAME_LEN` without the byte at its end).
pub const MAX_NAME: usize = 127;

/// Bytes of a sector, the unit of all lengths here.
pub const SECTOR: u64 = 512;

/// What is known of a device without its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its number as `major:minor`.
    pub device: String,
    /// How often it is open; mounts count.
    pub open_count: u32,
    /// It has a table and so can be used.
    pub has_table: bool,
    /// Reads and writes wait.
    pub suspended: bool,
    /// It goes when nobody has it open any more.
    pub deferred_remove: bool,
}

/// One line of a table, or of the status of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// First sector.
    pub start: u64,
    /// Number of sectors.
    pub sectors: u64,
    /// Kind: `thin`, `thin-pool`.
    pub kind: String,
    /// Parameters, or the status, as text.
    pub text: String,
}

/// When a device is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Now; open: an error.
    Now,
    /// When nobody has it open.
    Deferred,
}

/// When it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Now.
    Now,
    /// It is open, and goes when it is closed.
    Later,
}

/// The device-mapper of one kernel.
pub trait Dm: Send + Sync + fmt::Debug {
    /// Version of the interface.
    fn version(&self) -> Result<(u32, u32, u32)>;

    /// Names of all devices.
    fn names(&self) -> Result<Vec<String>>;

    /// What is known of a device; no such device: `None`.
    fn info(&self, name: &str) -> Result<Option<Info>>;

    /// The table that is in use.
    fn table(&self, name: &str) -> Result<Vec<Target>>;

    /// What the targets of a device say of themselves.
    fn status(&self, name: &str) -> Result<Vec<Target>>;

    /// Makes a device without a table.
    fn create(&self, name: &str) -> Result<()>;

    /// Gives a device a table, to be used from the next [`Dm::resume`] on.
    fn load(&self, name: &str, target: &Target) -> Result<()>;

    /// Gives up a table that was loaded and is not in use.
    fn clear(&self, name: &str) -> Result<()>;

    /// Lets reads and writes wait; a mounted file system is made consistent first.
    fn suspend(&self, name: &str) -> Result<()>;

    /// Begins to use a loaded table, and ends the waiting. Its node is there afterwards.
    fn resume(&self, name: &str) -> Result<()>;

    /// Gives a device another name, also while it is open.
    fn rename(&self, name: &str, new: &str) -> Result<()>;

    /// Removes a device, and its node.
    fn remove(&self, name: &str, when: Removal) -> Result<Gone>;

    /// Sends a message to the first target of a device, or, beginning with `@`, to the device itself.
    fn message(&self, name: &str, text: &str) -> Result<()>;

    /// Where its node is.
    fn node(&self, name: &str) -> PathBuf;
}

/// Whether an error says that there is no such device.
pub fn is_absent(error: &Error) -> bool {
    error.kind() == ErrorKind::Os(libc::ENXIO)
}

/// Whether an error says that the pool knows no such thin device.
pub fn is_unknown_id(error: &Error) -> bool {
    error.kind() == ErrorKind::Os(libc::ENODATA)
}

/// Whether a name can be that of a device, and its node is called like it: udev writes other characters otherwise.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".."
}
