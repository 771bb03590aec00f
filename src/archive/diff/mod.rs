// SPDX-License-Identifier: MulanPSL-2.0
//! From a tree back to an archive: what a layer changes of the layers below it.
//!
//! ```text
//! upper ─► walk ─┬─► (lower: merged view of the layers below)
//!         node   ├─► list: changes, size
//!                └─► entries ─► tar: the archive
//! ```
//!
//! Two ways to find out what has changed, one archive:
//!
//! | | an overlay directory | two whole trees |
//! |---|---|---|
//! | changed | is there | differs in type, owner, mode, times, attributes, or content: size first, then bytes; or has more names |
//! | deleted | a whiteout: device 0/0, or an empty file with `trusted.overlay.whiteout` | is only in the tree below |
//! | all below is deleted | `trusted.overlay.opaque=y` | each entry is |
//! | renamed directories, files with metadata only | `Unsupported` before anything is written: compare the trees that the kernel shows | as shown |
//!
//! What is decided here:
//!
//! | question | answer |
//! |---|---|
//! | order | depth first, names of a directory in byte order; a directory before what is in it, and all directories on the way to a change are in the archive |
//! | the root | the first entry, `./`, unless both trees have the same |
//! | headers | POSIX ustar, with PAX records for what does not fit and for nanoseconds; raw bytes for names, with `hdrcharset=BINARY` where they are not UTF-8 |
//! | owners | numbers, no names, with the shift of a user namespace taken back; who is outside of the namespace is an error |
//! | extended attributes | as `SCHILY.xattr.*`, in byte order; access control lists as text too. Left out: `trusted.overlay.*`, and the labels of this machine, `security.selinux` and `security.evm` |
//! | hard links | links within the archive: a file that got one more name is in it as well, as the kernel copies it up. Of two trees, a name made while another one was removed is a file of its own: nothing tells |
//! | holes | GNU sparse 1.0 where they are worth it |
//! | sockets | left out with a warning; what they hide below stays hidden |
//! | times of whiteouts | 0: they say nothing |
//! | devices 0/0 of a whole tree | as sockets: in an archive they would be whiteouts, which is what an overlay makes of them |
//! | names that begin with `.wh.` | errors: the archive would say something else |
//!
//! Nothing follows a link, and nothing needs a path of more than one component, so depth is limited by memory alone. A file
//! is read through the descriptor by which it was looked at; a file or directory that changes meanwhile is an error, `InUse`.

mod entries;
mod list;
mod lower;
mod node;
mod tar;
mod walk;

use std::io::Write;
use std::os::fd::BorrowedFd;

use crate::archive::OwnerShift;
use crate::digest::Digest;
use crate::error::Result;
use crate::units::Bytes;

/// What a tree is compared with.
#[derive(Debug, Clone, Copy)]
pub enum DiffBase<'a> {
    /// The tree is an overlay directory on these, topmost first; none: nothing is below.
    Lowers(&'a [BorrowedFd<'a>]),
    /// The tree is whole, and so is this one; `None`: everything is new.
    Tree(Option<BorrowedFd<'a>>),
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// There was nothing of this path.
    Added,
    /// It differs, or something below it does.
    Modified,
    /// It is gone, with all below it.
    Deleted,
}

/// A path that a layer changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Bytes of the path below the root, without a slash in front.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What [`diff`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diffed {
    /// Digest of the archive: the diff ID of a layer made of it.
    pub diff_id: Digest,
    /// Length of the archive.
    pub tar_size: Bytes,
    /// Sum of the sizes of its files, as [`crate::archive::Applied::content_size`].
    pub content_size: Bytes,
    /// Entries of the archive.
    pub entries: u64,
    /// Sockets, and devices 0/0 of whole trees, that were left out.
    pub skipped: u64,
}

/// Writes what `tree` changes of `base` to `out`, as an uncompressed layer archive.
///
/// Errors: `InUse` when the tree changes meanwhile; `Unsupported` for an overlay directory that only the kernel
/// understands (nothing is written then); `InvalidData` for what no layer archive can hold; or what the system said. What
/// was written before an error is no archive.
pub fn diff(
    tree: BorrowedFd<'_>,
    base: &DiffBase<'_>,
    shift: Option<OwnerShift>,
    out: &mut dyn Write,
) -> Result<Diffed> {
    if let DiffBase::Lowers(_) = base {
        walk::refuse_kernels_own(tree)?;
    }
    let mut entries = entries::Entries::new(out, shift);
    walk::walk(tree, base, &mut entries)?;
    entries.finish()
}

/// Tells `each` of every path that `tree` changes of `base`, in the order of the archive, but not of the root itself. Files
/// that come or go meanwhile are listed or not. Errors as for [`diff`].
pub fn changes(
    tree: BorrowedFd<'_>,
    base: &DiffBase<'_>,
    each: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    if let DiffBase::Lowers(_) = base {
        walk::refuse_kernels_own(tree)?;
    }
    walk::walk(tree, base, &mut list::Changes::new(each))
}

/// Sum of the sizes of the files that `tree` changes of `base`: [`Diffed::content_size`], nearly without reading them.
pub fn diff_size(tree: BorrowedFd<'_>, base: &DiffBase<'_>) -> Result<Bytes> {
    if let DiffBase::Lowers(_) = base {
        walk::refuse_kernels_own(tree)?;
    }
    let mut size = list::Size::default();
    walk::walk(tree, base, &mut size)?;
    Ok(size.total())
}
