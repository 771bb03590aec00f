// SPDX-License-Identifier: MulanPSL-2.0
//! Chunks of a tar on their way from the thread that decompresses to those that unpack and hash.
//!
//! There are [`CHUNKS`] of them at most, used again and again, so the slowest thread sets the pace and memory is bounded.
//! Both takers see the same chunk; whoever gives it back last makes it free. No taker ever waits for another taker but
//! for room for lines, which the hashing thread makes without waiting for anybody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::archive::entry::Input;
use crate::archive::stream::Stream;
use crate::archive::tar_split::{Outlet, PENDING, Packer};
use crate::digest::{Digest, Digester};
use crate::error::{Error, ErrorKind, Result};

/// Chunks on their way.
const CHUNKS: usize = 16;
/// Buffers of lines on their way to be compressed.
const LINES: usize = 4;

/// How a stream is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Bytes of a chunk: at least one.
    pub(super) chunk: usize,
    /// Layers that end within so many chunks are not worth a thread.
    pub(super) alone: usize,
}

impl Sizes {
    /// Small enough to stay in a core's cache, large enough that handing over costs nothing beside it.
    pub(super) const USUAL: Sizes = Sizes { chunk: 128 << 10, alone: 4 };
}

/// A piece of the tar.
#[derive(Debug)]
struct Chunk {
    space: Box<[u8]>,
    len: usize,
}

impl Chunk {
    fn new(sizes: Sizes) -> Self {
        Chunk { space: vec![0; sizes.chunk].into_boxed_slice(), len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.space.get(..self.len).unwrap_or_default()
    }

    /// Fills it; false at the end of the stream.
    fn fill(&mut self, stream: &mut Stream<'_>) -> Result<bool> {
        self.len = 0;
        self.len = stream.fill(&mut self.space)?;
        Ok(self.len > 0)
    }
}

/// The start of a stream, read to see whether there is more.
pub(super) struct Head {
    sizes: Sizes,
    chunks: VecDeque<Chunk>,
    /// What came behind it.
    failed: Option<Error>,
}

impl Head {
    pub(super) fn read(stream: &mut Stream<'_>, sizes: Sizes) -> Self {
        let mut head = Head { sizes, chunks: VecDeque::new(), failed: None };
        while head.chunks.len() < sizes.alone && !stream.has_ended() {
            let mut chunk = Chunk::new(sizes);
            match chunk.fill(stream) {
                Ok(true) => head.chunks.push_back(chunk),
                Ok(false) => break,
                Err(error) => {
                    head.failed = Some(error);
                    break;
                }
            }
        }
        head
    }

    /// Whether it is known that nothing follows.
    pub(super) fn is_last(&self) -> bool {
        self.failed.is_some()
    }
}

/// The tar as one thread reads and hashes it alone.
pub(super) struct Direct<'s, 'a> {
    stream: &'s mut Stream<'a>,
    head: Head,
    chunk: Chunk,
    at: usize,
    digester: Digester,
    ended: bool,
}

impl<'s, 'a> Direct<'s, 'a> {
    pub(super) fn new(stream: &'s mut Stream<'a>, head: Head) -> Self {
        let chunk = Chunk { space: Box::default(), len: 0 };
        Direct { stream, head, chunk, at: 0, digester: Digester::new(), ended: false }
    }

    /// Digest of what was read.
    pub(super) fn finish(self) -> Digest {
        self.digester.finish()
    }

    fn next(&mut self) -> Result<()> {
        self.at = 0;
        if let Some(chunk) = self.head.chunks.pop_front() {
            self.chunk = chunk;
        } else {
            self.chunk.len = 0;
            if let Some(error) = self.head.failed.take() {
                return Err(error);
            }
            if self.chunk.space.is_empty() && !self.stream.has_ended() {
                self.chunk = Chunk::new(self.head.sizes);
            }
            self.ended = !self.chunk.fill(self.stream)?;
        }
        self.digester.update(self.chunk.bytes());
        Ok(())
    }
}

impl Input for Direct<'_, '_> {
    fn peek(&mut self) -> Result<&[u8]> {
        if self.at == self.chunk.len && !self.ended {
            self.next()?;
        }
        Ok(self.chunk.bytes().get(self.at..).unwrap_or_default())
    }
    fn consume(&mut self, count: usize) {
        self.at = self.chunk.len.min(self.at + count);
    }
}

/// What comes to the unpacking thread.
enum Piece {
    Chunk(Arc<Chunk>),
    Failed(Error),
    End,
}

/// What comes to the hashing thread.
enum Task {
    Hash(Arc<Chunk>),
    Compress(Vec<u8>),
}

/// The way back for chunks. When a taker ends, however it does, the feeding thread hears of it: chunks that it had are
/// lost, and waiting for them would never end.
struct Return(Sender<Option<Arc<Chunk>>>);

impl Return {
    fn give(&self, chunk: Arc<Chunk>) {
        // Nobody is there any more when everything has been read.
        drop(self.0.send(Some(chunk)));
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        drop(self.0.send(None));
    }
}

/// The three ends of a new pipe.
pub(super) fn new(sizes: Sizes) -> (Feed, (Piped, Lines), Work) {
    let (to_unpack, pieces) = sync_channel(CHUNKS + 1);
    let (to_digest, tasks) = sync_channel(CHUNKS + LINES);
    let (back, free) = channel();
    let (used, empty) = channel();
    let feed = Feed { to_unpack, to_digest: to_digest.clone(), free, made: 0, sizes };
    let input = Piped { pieces, back: Return(back.clone()), chunk: None, at: 0, ended: false };
    (feed, (input, Lines { to: to_digest, empty }), Work { tasks, back: Return(back), used })
}

/// The end that decompresses.
pub(super) struct Feed {
    to_unpack: SyncSender<Piece>,
    to_digest: SyncSender<Task>,
    free: Receiver<Option<Arc<Chunk>>>,
    made: usize,
    sizes: Sizes,
}

impl Feed {
    /// Reads the stream to its end, to an error, which the unpacking end gets, or until a taker has ended.
    pub(super) fn run(mut self, stream: &mut Stream<'_>, head: &mut Head) {
        for chunk in head.chunks.drain(..) {
            self.made += 1;
            if self.send(Arc::new(chunk)).is_none() {
                return;
            }
        }
        while let Some(mut chunk) = self.next_free() {
            let Some(space) = Arc::get_mut(&mut chunk) else { continue };
            let last = match space.fill(stream) {
                Ok(true) => {
                    if self.send(chunk).is_none() {
                        return;
                    }
                    continue;
                }
                Ok(false) => Piece::End,
                Err(error) => Piece::Failed(error),
            };
            // If nobody takes it, that thread's own error counts.
            drop(self.to_unpack.send(last));
            return;
        }
    }

    fn send(&self, chunk: Arc<Chunk>) -> Option<()> {
        self.to_digest.send(Task::Hash(Arc::clone(&chunk))).ok()?;
        self.to_unpack.send(Piece::Chunk(chunk)).ok()
    }

    /// A chunk that both takers have given back; `None` when one of them has ended.
    fn next_free(&mut self) -> Option<Arc<Chunk>> {
        loop {
            let mut returned = match self.free.try_recv() {
                Ok(returned) => returned?,
                Err(_) if self.made < CHUNKS => {
                    self.made += 1;
                    return Some(Arc::new(Chunk::new(self.sizes)));
                }
                Err(_) => self.free.recv().ok()??,
            };
            if Arc::get_mut(&mut returned).is_some() {
                return Some(returned);
            }
        }
    }
}

/// The end that unpacks.
pub(super) struct Piped {
    pieces: Receiver<Piece>,
    back: Return,
    chunk: Option<Arc<Chunk>>,
    at: usize,
    ended: bool,
}

impl Piped {
    fn bytes(&self) -> &[u8] {
        let bytes = self.chunk.as_ref().map(|chunk| chunk.bytes()).unwrap_or_default();
        bytes.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Result<()> {
        if let Some(chunk) = self.chunk.take() {
            self.back.give(chunk);
        }
        self.at = 0;
        match self.pieces.recv() {
            Ok(Piece::Chunk(chunk)) => self.chunk = Some(chunk),
            Ok(Piece::Failed(error)) => return Err(error),
            Ok(Piece::End) => self.ended = true,
            Err(_) => return Err(stopped("reading the layer")),
        }
        Ok(())
    }
}

impl Input for Piped {
    fn peek(&mut self) -> Result<&[u8]> {
        if self.bytes().is_empty() && !self.ended {
            self.next()?;
        }
        Ok(self.bytes())
    }
    fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }
}

/// Sends lines to be compressed.
pub(super) struct Lines {
    to: SyncSender<Task>,
    empty: Receiver<Vec<u8>>,
}

impl Outlet for Lines {
    fn take(&mut self, lines: &mut Vec<u8>) -> Result<()> {
        let empty = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(2 * PENDING));
        let full = std::mem::replace(lines, empty);
        self.to.send(Task::Compress(full)).map_err(|_| stopped("writing tar-split"))
    }
}

/// The end that hashes and compresses.
pub(super) struct Work {
    tasks: Receiver<Task>,
    back: Return,
    used: Sender<Vec<u8>>,
}

impl Work {
    /// Works until the other ends are gone; the digest of the tar.
    pub(super) fn run<W: std::io::Write>(self, mut packer: Packer<W>) -> Result<Digest> {
        let mut digester = Digester::new();
        while let Ok(task) = self.tasks.recv() {
            match task {
                Task::Hash(chunk) => {
                    digester.update(chunk.bytes());
                    self.back.give(chunk);
                }
                Task::Compress(mut lines) => {
                    packer.take(&mut lines)?;
                    // Nobody is there any more behind the last lines.
                    drop(self.used.send(lines));
                }
            }
        }
        packer.finish()?;
        Ok(digester.finish())
    }
}

/// Another thread has ended too early, and has an error of its own.
fn stopped(what: &str) -> Error {
    Error::new(ErrorKind::Os(libc::EIO), format!("{what} has stopped"))
}
