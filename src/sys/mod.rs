// SPDX-License-Identifier: MulanPSL-2.0
//! The only system calls: everything that touches the kernel beyond what `std` offers goes through here.
//!
//! Directories are held as descriptors ([`fs::Dir`]); names below them are resolved from the descriptor and never
//! follow a symbolic link, so nothing that lies in a store can lead out of it.

pub(crate) mod clmul;
pub mod dm;
pub mod ext4;
pub mod flock;
pub mod fs;
pub mod lock;
pub mod mount;
pub mod node;
pub mod quota;
pub mod semaphore;
pub(crate) mod umask;
pub mod xattr;

#[cfg(test)]
pub(crate) mod power;

/// Folders and file systems for tests, shared with the integration tests.
#[cfg(test)]
#[path = "../../tests/common/mod.rs"]
pub(crate) mod testing;
