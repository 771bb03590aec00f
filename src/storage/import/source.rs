// SPDX-License-Identifier: MulanPSL-2.0
//! Where an image is read from: a directory, or an archive that can be read by offset.
//!
//! A plain archive in a regular file is read where it lies. A compressed one, or one that comes through a pipe, is
//! first written to a file without a name in the storage root, which the kernel removes whatever happens.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::archive::{self, Compression};
use crate::driver::Limits;
use crate::error::{During, Error, ErrorKind, Result};

use super::tar_index::{Index, Span};
use super::{Progress, Watch};

/// Most bytes of a document (manifest, index, config): what a registry takes.
const MAX_DOCUMENT: u64 = 8 << 20;
/// The ratio of decompression is judged only beyond this.
const RATIO_FROM: u64 = 64 << 20;
const COPY_BUFFER: usize = 128 << 10;
/// Enough to know every compression.
const HEAD: usize = 8;

/// The files of an image.
#[derive(Debug)]
pub(super) enum Source {
    Dir(PathBuf),
    Tar { file: Arc<File>, index: Index, prefix: String },
}

/// A file of an image, opened.
pub(super) struct Opened {
    pub(super) size: u64,
    pub(super) content: Box<dyn Read + Send>,
}

impl Source {
    /// A directory, or an archive in a file.
    pub(super) fn open(
        path: &Path,
        staging: &Path,
        limits: &Limits,
        watch: &mut Watch<'_>,
    ) -> Result<Source> {
        let named = || format!("open {}", path.display());
        // As the caller wants it: this may be a pipe, and then it is waited for.
        let file = File::open(path).during(named)?;
        let kind = file.metadata().during(named)?.file_type();
        if kind.is_dir() {
            return Ok(Source::Dir(path.to_owned()));
        }
        if kind.is_file() {
            let mut head = [0u8; HEAD];
            let len = file.read_at(&mut head, 0).during(|| format!("read {}", path.display()))?;
            if archive::detect_compression(head.get(..len).unwrap_or_default()) == Compression::None {
                return Source::tar(file);
            }
        }
        Source::spool(Box::new(file), staging, limits, watch)
    }

    /// An archive from a stream.
    pub(super) fn spool(
        stream: Box<dyn Read + Send>,
        staging: &Path,
        limits: &Limits,
        watch: &mut Watch<'_>,
    ) -> Result<Source> {
        let named = || format!("make a temporary file in {}", staging.display());
        let mut file = tempfile::tempfile_in(staging).during(named)?;
        let gauge =
            Gauge { taken: AtomicU64::new(0), written: AtomicU64::new(0), watch: Mutex::new(watch), limits };
        let counted = Counted { inner: BufReader::with_capacity(COPY_BUFFER, stream), gauge: &gauge };
        let mut plain = archive::decompressed(Box::new(counted)).during(|| "read the archive")?;
        let mut out = BufWriter::with_capacity(COPY_BUFFER, &mut file);
        let mut buffer = vec![0u8; COPY_BUFFER];
        loop {
            let len = match plain.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).during(|| "read the archive"),
            };
            let bytes = buffer.get(..len).unwrap_or_default();
            out.write_all(bytes).during(|| format!("write a temporary file in {}", staging.display()))?;
            gauge.has_written(len)?;
        }
        drop(plain);
        out.flush().during(|| format!("write a temporary file in {}", staging.display()))?;
        drop(out);
        file.rewind().during(|| "rewind a temporary file")?;
        Source::tar(file)
    }

    fn tar(file: File) -> Result<Source> {
        let index = Index::read(&file)?;
        Ok(Source::Tar { file: Arc::new(file), index, prefix: String::new() })
    }

    /// Whether a file of this name is at the top; an archive may have all its files in one directory.
    pub(super) fn holds(&mut self, name: &str) -> bool {
        match self {
            Source::Dir(dir) => dir.join(name).is_file(),
            Source::Tar { index, prefix, .. } => match index.prefix_of(name) {
                Some(found) => {
                    *prefix = found;
                    true
                }
                None => false,
            },
        }
    }

    /// Opens a file; `name` may come from the image itself. Absent, or leading out of the image: `InvalidData`.
    pub(super) fn open_file(&self, name: &str) -> Result<Opened> {
        let absent = || Error::new(ErrorKind::InvalidData, format!("the image lacks the file {name}"));
        match self {
            Source::Tar { file, index, prefix } => {
                let span = index.find(&format!("{prefix}{name}")).ok_or_else(absent)?;
                let content = Box::new(Section { file: file.clone(), span });
                Ok(Opened { size: span.len, content })
            }
            Source::Dir(dir) => {
                let inside = Path::new(name).components().all(|part| {
                    matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir)
                });
                if !inside {
                    return Err(absent());
                }
                let path = dir.join(name);
                let file = match open_for_reading(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(absent()),
                    other => other.during(|| format!("open {}", path.display()))?,
                };
                let meta = file.metadata().during(|| format!("open {}", path.display()))?;
                if !meta.is_file() {
                    let message = format!("{} is not a regular file", path.display());
                    return Err(Error::new(ErrorKind::InvalidData, message));
                }
                Ok(Opened { size: meta.len(), content: Box::new(file) })
            }
        }
    }

    /// Reads a whole document.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>> {
        let Opened { size, mut content } = self.open_file(name)?;
        if size > MAX_DOCUMENT {
            let message = format!("{name} of {size} bytes is larger than {MAX_DOCUMENT}");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let mut bytes = Vec::new();
        content.by_ref().take(MAX_DOCUMENT).read_to_end(&mut bytes).during(|| format!("read {name}"))?;
        Ok(bytes)
    }
}

/// Opens without waiting for the other end of a fifo.
fn open_for_reading(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

/// What a stream took and gave so far; asked on both sides, since one may go on for ever without the other.
struct Gauge<'a, 'w> {
    taken: AtomicU64,
    written: AtomicU64,
    watch: Mutex<&'a mut Watch<'w>>,
    limits: &'a Limits,
}

impl Gauge<'_, '_> {
    fn has_written(&self, len: usize) -> Result<()> {
        let written = add(&self.written, len);
        let bomb =
            written > RATIO_FROM && written / self.taken.load(Ordering::Relaxed).max(1) > self.limits.ratio;
        if written > self.limits.stream.0 || bomb {
            return Err(self.beyond());
        }
        self.tell()
    }

    /// Headers, padding and frames that are skipped give nothing: as for a layer, twice the bound of what comes out.
    fn has_taken(&self, len: usize) -> Result<()> {
        if add(&self.taken, len) > self.limits.stream.0.saturating_mul(2) {
            return Err(self.beyond());
        }
        self.tell()
    }

    fn beyond(&self) -> Error {
        let (written, taken) = (self.written.load(Ordering::Relaxed), self.taken.load(Ordering::Relaxed));
        let message = format!("the archive grows beyond the limits: {written} bytes from {taken}");
        Error::new(ErrorKind::LimitExceeded, message)
    }

    fn tell(&self) -> Result<()> {
        self.watch.lock().tell(&Progress::Unpacked { bytes: self.written.load(Ordering::Relaxed) })
    }
}

fn add(counter: &AtomicU64, len: usize) -> u64 {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    counter.fetch_add(len, Ordering::Relaxed).saturating_add(len)
}

struct Counted<'a, 'w, R> {
    inner: R,
    gauge: &'a Gauge<'a, 'w>,
}

impl<R: Read> Read for Counted<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.gauge.has_taken(len)?;
        Ok(len)
    }
}

/// A part of a file; many may be read at once.
struct Section {
    file: Arc<File>,
    span: Span,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = usize::try_from(self.span.len).unwrap_or(usize::MAX).min(buffer.len());
        let Some(target) = buffer.get_mut(..room).filter(|target| !target.is_empty()) else { return Ok(0) };
        let len = self.file.read_at(target, self.span.offset)?;
        if len == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the archive became shorter"));
        }
        let step = u64::try_from(len).unwrap_or(u64::MAX);
        self.span.offset += step;
        self.span.len -= step;
        Ok(len)
    }
}
