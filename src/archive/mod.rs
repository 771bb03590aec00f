// SPDX-License-Identifier: MulanPSL-2.0
//! OCI layer archive to directory and back. Knows no store and no driver.
//!
//! [`apply`] is one forward pass over a stream: decompress, hash, parse, write the tree, write tar-split. Of a layer
//! that is not small these run side by side, in threads that end with the call; `source` is read by the caller's own.
//! [`rebuild`] gives the exact tar back from the tree and the tar-split stream, [`diff`](diff()) makes a new one of what a
//! tree changes of another. Every path is resolved from the
//! layer's directory descriptor without following a symbolic link out of it.
//!
//! ```text
//! source ─► stream ── compression ─► pipe ─► entry (header, pax, sparse) ─► pass ─┬─► unpack (tree, attributes, acl, remove)
//!           digests                 threads  tar reader                  whiteout └─► tar_split (crc)
//! rebuild, verify ◄─ tar_split lines, files (tree), content
//! diff, changes ◄─ tree, and the layers below it
//!          verify ◄─ headers (entry), metadata, differences
//! ```
//!
//! What is decided here, where formats and other programs leave room:
//!
//! | question | answer |
//! |---|---|
//! | the end | two zero blocks, one at the very end, or the stream's end between two entries, as in Docker; within a header, content or padding the stream is truncated |
//! | what follows the end of the archive | hashed and kept for the exact tar, not looked at, as in Docker |
//! | what follows the compressed stream | zeros are padding, another member goes on, anything else is an error |
//! | an empty stream | an empty layer |
//! | names | cleaned as bytes: `..` stops at the root, absolute names are below it; links on the way are followed within the root, missing directories made, 0755 |
//! | a file where a directory is needed | an error; where an entry goes, what is there is replaced |
//! | an entry twice | the later one counts; the content of the earlier one goes to tar-split |
//! | hard link | to something of this layer that is no directory; its own metadata is not looked at |
//! | owners | the header's numbers; names are ignored |
//! | access control lists by name | left out with a warning, unless the number is there too |
//! | extended attributes | see `attributes`: all but `trusted.overlay.*` |
//! | whiteouts | hide what is below, never an entry of the same archive, in either order |
//! | `.wh.`, `.wh..`, `.wh...` | errors: they would hide a directory itself or its parent |
//! | `.wh..wh.*` but `.wh..wh..opq` | left overs of AUFS: nothing in the tree |
//! | global PAX headers | owners and times hold for what follows; names, sizes and sparse maps are errors |
//! | entry types other than files, links, devices, directories, fifos and their extended headers | errors, but a volume label is skipped |
//!
//! Memory does not depend on the layer, but for an inode number an entry with [`Whiteouts::Remove`].

mod acl;
mod apply;
mod attributes;
mod capability;
mod compression;
mod content;
mod crc;
mod diff;
mod differences;
mod entry;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod headers;
mod metadata;
mod pass;
mod pax;
mod pipe;
mod rebuild;
mod remove;
mod sparse;
mod stream;
mod tar_split;
mod tree;
mod unpack;
mod verify;
mod whiteout;

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use crate::digest::Digest;
use crate::error::Result;
use crate::units::Bytes;

pub use diff::{Change, ChangeKind, DiffBase, Diffed, changes, diff, diff_size};

/// What a whiteout in the archive (`.wh.<name>`, `.wh..wh..opq`) becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// A character device 0/0, and `trusted.overlay.opaque=y` on the directory: the layer is an overlay directory.
    Overlay,
    /// What it hides is removed from the tree: the tree is a copy of the parent's.
    Remove,
    /// An ordinary file.
    Keep,
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Shift of owners into a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerShift {
    /// Added to every user id.
    pub uid: u32,
    /// Added to every group id.
    pub gid: u32,
}

/// Bounds on what one archive may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most bytes of the uncompressed stream.
    pub stream: Bytes,
    /// Most uncompressed bytes for each compressed byte, judged only after the first 64 MiB of output.
    pub ratio: u64,
    /// Longest path of an entry in bytes.
    pub path: usize,
    /// Longest PAX header or GNU long name in bytes.
    pub extended_header: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 10_000_000,
            stream: Bytes(1 << 40),
            ratio: 10_000,
            path: 4096,
            extended_header: 1 << 20,
        }
    }
}

/// What `apply` is asked to do.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// What whiteouts become.
    pub whiteouts: Whiteouts,
    /// Bounds.
    pub limits: Limits,
    /// Shift of owners, if the tree is for a user namespace.
    pub owner_shift: Option<OwnerShift>,
    /// Take owners from the archive (needs root); else everything belongs to the caller.
    pub owners: bool,
    /// Drop every `trusted.*` attribute, not only `trusted.overlay.*`.
    pub drop_trusted: bool,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        ApplyOptions {
            whiteouts: Whiteouts::Overlay,
            limits: Limits::default(),
            owner_shift: None,
            owners: true,
            drop_trusted: false,
        }
    }
}

/// What `apply` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Digest of the stream as it was read.
    pub compressed_digest: Digest,
    /// Length of the stream as it was read.
    pub compressed_size: Bytes,
    /// Length of the uncompressed stream.
    pub tar_size: Bytes,
    /// Sum of the entries' sizes: `diff-size` of a layer record.
    pub content_size: Bytes,
    /// Number of entries.
    pub entries: u64,
    /// How the stream was compressed.
    pub compression: Compression,
}

/// Reads one layer archive from `source` to its end, writes its tree below `target` (an empty directory, or for
/// [`Whiteouts::Remove`] a copy of the parent) and its gzip-compressed tar-split stream to `tar_split`.
///
/// Errors: `InvalidData` for a malformed or truncated stream or an entry that would leave the target,
/// `LimitExceeded`, or what the system said. After an error the target holds a part of the tree; the caller
/// removes it.
///
/// `source` is called by the calling thread only; of a layer of more than half a mebibyte it may have been read some
/// mebibytes further than what an error is about. `tar_split` may be called by another thread. No thread is left when
/// this returns.
pub fn apply(
    source: &mut dyn Read,
    target: BorrowedFd<'_>,
    tar_split: &mut (dyn Write + Send),
    options: &ApplyOptions,
) -> Result<Applied> {
    apply::apply(source, target, tar_split, options)
}

/// Writes the exact uncompressed tar of a layer to `out`: headers and padding from the gzip-compressed tar-split
/// stream, content from the tree below `layer`. Each file's CRC is verified; returns digest and length of what was
/// written. A tree or stream that does not fit: `Corrupt`, and never a silent end.
pub fn rebuild(
    tar_split: &mut dyn Read,
    layer: BorrowedFd<'_>,
    out: &mut dyn Write,
) -> Result<(Digest, Bytes)> {
    rebuild::rebuild(tar_split, layer, out)
}

/// What a comparison of a tree with its tar-split stream found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All that was compared is as it was.
    Valid,
    /// The first difference, for people.
    Differs(String),
}

/// How much of a tree is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What no other program leaves different in a layer that is whole: presence and content; where the stream holds
    /// headers, also type, target of a symbolic link, and device number; in a layer of an overlay, also whiteouts and opaque
    /// directories.
    Content,
    /// Also owner, mode, attributes and hard links, for which the stream must hold headers. A store that was copied by a tool
    /// that does not keep them differs in these, and works nevertheless.
    Metadata,
}

/// What `verify` is asked to do.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// What whiteouts became.
    pub whiteouts: Whiteouts,
    /// Shift of owners, if the tree is for a user namespace.
    pub owner_shift: Option<OwnerShift>,
    /// How much is compared.
    pub depth: Depth,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        VerifyOptions { whiteouts: Whiteouts::Overlay, owner_shift: None, depth: Depth::Metadata }
    }
}

/// Compares the tree below `layer` with its gzip-compressed tar-split stream, as far as [`VerifyOptions::depth`] says. What
/// occurs twice in the archive is compared with its last occurrence. Works on streams of the reference as well, which hold
/// CRC lines only.
///
/// Not compared: times, and what the archive does not name. Owners are compared only where the root of the tree belongs to
/// the root of the namespace, so not in trees that were made without privileges.
pub fn verify(tar_split: &mut dyn Read, layer: BorrowedFd<'_>, options: &VerifyOptions) -> Result<Verdict> {
    verify::verify(tar_split, layer, options)
}

/// The compression of a stream by its first bytes (10 are needed to be sure; fewer are taken as they come).
pub fn detect_compression(head: &[u8]) -> Compression {
    compression::detect(head)
}

/// Reads a stream decompressed, whatever of [`Compression`] it is. For callers that need the plain bytes of a small
/// archive (image archives of the command line).
pub fn decompressed<'a>(source: Box<dyn Read + Send + 'a>) -> Result<Box<dyn Read + Send + 'a>> {
    compression::decompressed(source)
}
