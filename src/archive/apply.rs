// SPDX-License-Identifier: MulanPSL-2.0
//! Who does what: one thread for a small layer, three for a large one.
//!
//! ```text
//! caller:        read ─► digest of what was read ─► decompress ─┬─► chunks
//! layer-unpack:  ◄───────────────────────────────────────────────┤  parse, CRC, write the tree, lines of tar-split ─┐
//! layer-digest:  ◄───────────────────────────────────────────────┘  digest of the tar; compress the lines ◄────────┘
//! ```
//!
//! The caller's `read` is only ever called by the caller's own thread. All threads have ended when this returns,
//! whatever happened. An error of the source comes to the pass behind the bytes before it, so the first problem of the
//! stream counts, as in one thread.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::{self, Builder, ScopedJoinHandle};

use crate::archive::pass::{self, Found};
use crate::archive::pipe::{self, Direct, Head, Sizes};
use crate::archive::stream::Stream;
use crate::archive::tar_split::Packer;
use crate::archive::unpack::Modes;
use crate::archive::{Applied, ApplyOptions};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::umask;
use crate::units::Bytes;

/// See [`crate::archive::apply`].
pub(super) fn apply(
    source: &mut dyn Read,
    target: BorrowedFd<'_>,
    tar_split: &mut (dyn Write + Send),
    options: &ApplyOptions,
) -> Result<Applied> {
    apply_in_chunks(source, target, tar_split, options, Sizes::USUAL)
}

/// The same with the stream cut in this way.
pub(super) fn apply_in_chunks(
    source: &mut dyn Read,
    target: BorrowedFd<'_>,
    tar_split: &mut (dyn Write + Send),
    options: &ApplyOptions,
    sizes: Sizes,
) -> Result<Applied> {
    let mut stream = Stream::open(source, &options.limits)?;
    let mut head = Head::read(&mut stream, sizes);
    let small = head.is_last() || stream.has_ended();
    let several = !small && thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let done =
        if several { together(&mut stream, &mut head, target, tar_split, options, sizes)? } else { None };
    let (found, diff_id) = match done {
        Some(done) => done,
        None => alone(&mut stream, head, target, tar_split, options)?,
    };
    let tail = stream.finish()?;
    Ok(Applied {
        diff_id,
        compressed_digest: tail.compressed_digest.unwrap_or(diff_id),
        compressed_size: tail.compressed_size,
        tar_size: tail.tar_size,
        content_size: Bytes(found.content_size),
        entries: found.entries,
        compression: tail.compression,
    })
}

fn alone(
    stream: &mut Stream<'_>,
    head: Head,
    target: BorrowedFd<'_>,
    tar_split: &mut dyn Write,
    options: &ApplyOptions,
) -> Result<(Found, Digest)> {
    let mut input = Direct::new(stream, head);
    let (found, packer) = pass::unpack(&mut input, Packer::new(tar_split), target, options, Modes::Masked)?;
    packer.finish()?;
    Ok((found, input.finish()))
}

/// `None` when the threads cannot be started; then nothing has been done yet.
fn together(
    stream: &mut Stream<'_>,
    head: &mut Head,
    target: BorrowedFd<'_>,
    tar_split: &mut (dyn Write + Send),
    options: &ApplyOptions,
    sizes: Sizes,
) -> Result<Option<(Found, Digest)>> {
    thread::scope(|scope| {
        let (feed, (input, lines), work) = pipe::new(sizes);
        let unpack = move || {
            let modes = if umask::clear_for_this_thread() { Modes::Exact } else { Modes::Masked };
            pass::unpack(input, lines, target, options, modes).map(|(found, _)| found)
        };
        let Ok(unpacking) = Builder::new().name("layer-unpack".to_owned()).spawn_scoped(scope, unpack) else {
            return Ok(None);
        };
        let digest = move || work.run(Packer::new(tar_split));
        let Ok(digesting) = Builder::new().name("layer-digest".to_owned()).spawn_scoped(scope, digest) else {
            drop(feed);
            // Without input it cannot have made anything.
            return ended(unpacking, "unpacks").map_or_else(|_| Ok(None), |_| Ok(None));
        };
        // A panic of the caller's own `read` goes on when the threads have ended.
        let fed = catch_unwind(AssertUnwindSafe(|| feed.run(stream, head)));
        let found = ended(unpacking, "unpacks");
        // When writing tar-split fails the other thread only sees that nobody takes its lines.
        let diff_id = ended(digesting, "hashes");
        if let Err(panic) = fed {
            resume_unwind(panic);
        }
        let diff_id = diff_id?;
        Ok(Some((found?, diff_id)))
    })
}

/// What a thread came to; a panic is an error.
fn ended<T>(thread: ScopedJoinHandle<'_, Result<T>>, what: &str) -> Result<T> {
    thread.join().unwrap_or_else(|panic| {
        // Its payload may panic again when it is dropped.
        std::mem::forget(panic);
        Err(Error::new(ErrorKind::Os(libc::EIO), format!("the thread that {what} the layer panicked")))
    })
}
