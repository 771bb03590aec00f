// SPDX-License-Identifier: MulanPSL-2.0
//! The tar-split stream: everything of a tar that is not the content of a file, so that tar and tree together give
//! the exact tar back.
//!
//! ```text
//! {"type":2,"payload":"<base64 of raw bytes>"}                                    headers, padding, end of archive
//! {"type":1,"name":"etc/passwd","size":65,"payload":"<base64 of CRC-64>","position":1}           content of a file
//! {"type":3,"size":65,"payload":"<base64 of CRC-64>"}                    content that a later entry replaced: follows
//! {"type":4,"payload":"<base64 of content>"}
//! ```
//!
//! One JSON object a line, gzip around all. It is the format of the tar-split package that Docker and
//! containers/storage keep beside their layers, with what is zero or absent left out as iSulad leaves it out; iSulad
//! itself writes type 1 only. Names are as the archive has them, but end with a slash if and only if they are those of
//! directories, which is all that says what an entry is. Names that are not UTF-8 are in `name_raw`, base64. Content that has no file in the tree
//! (of whiteouts) is in type 2 lines, under a `size` of 0.
//!
//! Our own are what the format cannot say, and other readers skip:
//! * key `sparse`, the map of a sparse file (`offset,length,…`): its content lies in the tar without its holes, while
//!   `size` and CRC are of the whole file;
//! * key `path` (`path_raw`), where the file is when a symbolic link on the way led there;
//! * types 3 and 4: the content of a file that a later entry of the same archive replaced, in type 4 lines (holes
//!   left out, as `sparse` says). It is found again by its size and CRC.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::write::GzEncoder;
use flate2::{Compression as Level, GzBuilder};
use serde::Deserialize;

use crate::archive::Compression;
use crate::archive::compression::Decoder;
use crate::archive::content;
use crate::archive::crc::Crc64;
use crate::archive::sparse::{self, Region};
use crate::archive::unpack::Replaced;
use crate::error::{During, Error, ErrorKind, Result};

/// Raw bytes of one line; longer ones are split. A multiple of 3, so that base64 needs no padding between.
const SEGMENT: usize = 24 << 10;
/// Lines are handed on and compressed, and the result written, in pieces of about this size: one by one costs a call each.
pub(super) const PENDING: usize = 32 << 10;
/// Longest line that is read: Docker's contain up to 1 MiB of raw bytes, its older versions any padding whole.
const LONGEST_LINE: u64 = 64 << 20;
/// "Unix" in a gzip header, as the reference has it.
const GZIP_OS_UNIX: u8 = 3;
/// Base64 headers shrink to a tenth whatever the level; the lowest costs a third of the default's time.
const LEVEL: u32 = 1;

/// Where lines go, many at a time.
pub(super) trait Outlet {
    /// Takes whole lines and leaves an empty buffer in their place.
    fn take(&mut self, lines: &mut Vec<u8>) -> Result<()>;
}

/// Compresses lines.
pub(super) struct Packer<W: Write>(GzEncoder<BufWriter<Quiet<W>>>);

/// Writes nothing while a panic is on its way: an encoder ends its stream when it is dropped, and a writer that panicked
/// once may do so again, which would end the process.
struct Quiet<W>(W);

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if std::thread::panicking() {
            return Err(std::io::Error::other("a panic is on its way"));
        }
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Packer<W> {
    pub(super) fn new(out: W) -> Self {
        let out = BufWriter::with_capacity(PENDING, Quiet(out));
        Packer(GzBuilder::new().operating_system(GZIP_OS_UNIX).write(out, Level::new(LEVEL)))
    }

    /// Ends the gzip stream and flushes.
    pub(super) fn finish(self) -> Result<()> {
        let mut out = self.0.finish().during(|| "write tar-split")?;
        out.flush().during(|| "write tar-split")
    }
}

impl<W: Write> Outlet for Packer<W> {
    fn take(&mut self, lines: &mut Vec<u8>) -> Result<()> {
        self.0.write_all(lines).during(|| "write tar-split")?;
        lines.clear();
        Ok(())
    }
}

/// Writes tar-split lines.
pub(super) struct Writer<O: Outlet> {
    out: O,
    position: u64,
    /// Lines not yet handed on.
    line: Vec<u8>,
}

impl<O: Outlet> Writer<O> {
    pub(super) fn new(out: O) -> Self {
        Writer { out, position: 0, line: Vec::with_capacity(2 * PENDING) }
    }

    /// Bytes of the tar that are not content of a file.
    pub(super) fn segment(&mut self, raw: &[u8]) -> Result<()> {
        for piece in raw.chunks(SEGMENT) {
            self.line.extend_from_slice(b"{\"type\":2,\"payload\":\"");
            self.base64(piece);
            self.line.push(b'"');
            self.end_line()?;
        }
        Ok(())
    }

    /// An entry of the tar: its name as stored; where it is if that is not where its name says; and, if it is a file
    /// with content in the tree, size, CRC and map.
    pub(super) fn entry(
        &mut self,
        name: &[u8],
        place: Option<&[u8]>,
        content: Option<&Content<'_>>,
    ) -> Result<()> {
        self.line.extend_from_slice(b"{\"type\":1,");
        self.name("name", name)?;
        if let Some(content) = content {
            self.content(content);
        }
        if let Some(place) = place {
            self.line.push(b',');
            self.name("path", place)?;
        }
        self.end_line()
    }

    fn name(&mut self, key: &str, name: &[u8]) -> Result<()> {
        self.line.push(b'"');
        self.line.extend_from_slice(key.as_bytes());
        match std::str::from_utf8(name) {
            Ok(name) => {
                self.line.extend_from_slice(b"\":");
                serde_json::to_writer(&mut self.line, name)
                    .map_err(std::io::Error::from)
                    .during(|| "write tar-split")
            }
            Err(_) => {
                self.line.extend_from_slice(b"_raw\":\"");
                self.base64(name);
                self.line.push(b'"');
                Ok(())
            }
        }
    }

    fn content(&mut self, content: &Content<'_>) {
        self.number(b",\"size\":", content.size);
        self.line.extend_from_slice(b",\"payload\":\"");
        self.base64(&content.crc);
        self.line.push(b'"');
        if let Some(map) = content.sparse {
            self.line.extend_from_slice(b",\"sparse\":\"");
            for (index, (offset, length)) in map.iter().enumerate() {
                self.number(if index == 0 { b"" } else { b"," }, *offset);
                self.number(b",", *length);
            }
            self.line.push(b'"');
        }
    }

    fn number(&mut self, before: &[u8], value: u64) {
        self.line.extend_from_slice(before);
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = value;
        loop {
            at -= 1;
            if let Some(digit) = digits.get_mut(at) {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            }
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.line.extend_from_slice(digits.get(at..).unwrap_or_default());
    }

    fn base64(&mut self, bytes: &[u8]) {
        let start = self.line.len();
        self.line.resize(start + bytes.len().div_ceil(3) * 4, 0);
        if let Some(space) = self.line.get_mut(start..) {
            // The space is exactly what padded base64 needs.
            let written = STANDARD.encode_slice(bytes, space);
            debug_assert_eq!(written.ok(), Some(bytes.len().div_ceil(3) * 4));
        }
    }

    fn end_line(&mut self) -> Result<()> {
        if self.position != 0 {
            self.number(b",\"position\":", self.position);
        }
        self.position += 1;
        self.line.extend_from_slice(b"}\n");
        if self.line.len() >= PENDING { self.out.take(&mut self.line) } else { Ok(()) }
    }

    /// Hands on what is left; gives the outlet back.
    pub(super) fn finish(mut self) -> Result<O> {
        self.out.take(&mut self.line)?;
        Ok(self.out)
    }
}

impl<O: Outlet> Replaced for Writer<O> {
    fn replaced(&mut self, file: &File) -> Result<()> {
        let size = file.metadata().during(|| "stat")?.len();
        if size == 0 {
            return Ok(());
        }
        let mut buffer = vec![0; SEGMENT];
        let map = content::data_regions(file, size)?;
        let mut crc = Crc64::new();
        content::for_each_piece(file, 0, size, &map, &mut buffer, &mut crc, |_| Ok(()))?;
        self.line.extend_from_slice(b"{\"type\":3");
        self.content(&Content { size, crc: crc.finish(), sparse: Some(&map) });
        self.end_line()?;
        content::for_each_piece(file, 0, size, &map, &mut buffer, &mut Crc64::new(), |piece| {
            self.line.extend_from_slice(b"{\"type\":4,\"payload\":\"");
            self.base64(piece);
            self.line.push(b'"');
            self.end_line()
        })
    }
}

/// Content of a file.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) size: u64,
    pub(super) crc: [u8; 8],
    pub(super) sparse: Option<&'a [Region]>,
}

/// One line, read.
#[derive(Debug)]
pub(super) enum Line {
    /// Bytes of the tar.
    Segment(Vec<u8>),
    /// An entry.
    Entry(Record),
    /// A file that was replaced; its content follows.
    Replaced {
        /// Size of the whole file.
        size: u64,
        /// CRC of the whole file.
        crc: [u8; 8],
        /// Where its content goes.
        map: Vec<Region>,
    },
    /// A piece of the content of a file that was replaced.
    Content(Vec<u8>),
    /// A line of a kind unknown.
    Other,
}

/// An entry of the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: Vec<u8>,
    /// Where it is, if not where its name says.
    pub(super) path: Option<Vec<u8>>,
    pub(super) size: u64,
    pub(super) crc: Option<[u8; 8]>,
    pub(super) sparse: Option<Vec<Region>>,
}

/// Reads tar-split lines.
pub(super) struct Lines<'a> {
    input: BufReader<Decoder<BufReader<&'a mut dyn Read>>>,
    line: Vec<u8>,
    number: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Result<Self> {
        let mut input = BufReader::with_capacity(32 << 10, input);
        // What a crash can leave of a file; the decoder would take it for a stream without members.
        if input.fill_buf().during(|| "read tar-split")?.is_empty() {
            return Err(Error::corrupt("tar-split is empty, not even a gzip header"));
        }
        let input = Decoder::new(input, Compression::Gzip)?;
        Ok(Lines { input: BufReader::with_capacity(64 << 10, input), line: Vec::new(), number: 0 })
    }

    /// The next line, `None` at the end. Anything that is not a whole stream of whole lines is `Corrupt`.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        if !self.read()? {
            return Ok(None);
        }
        self.parse().map(Some)
    }

    /// The next line of one of our own types (one digit each), as our writer spells it; others are skipped unparsed.
    pub(super) fn next_of_types(&mut self, types: &[u8]) -> Result<Option<Line>> {
        while self.read()? {
            if let Some([digit, b',', ..]) = self.line.strip_prefix(b"{\"type\":")
                && types.contains(digit)
            {
                return self.parse().map(Some);
            }
        }
        Ok(None)
    }

    /// Reads a line; `false` at the end.
    fn read(&mut self) -> Result<bool> {
        self.line.clear();
        self.number += 1;
        let mut limited = (&mut self.input).take(LONGEST_LINE);
        limited
            .read_until(b'\n', &mut self.line)
            .during(|| format!("read tar-split line {}", self.number))
            .map_err(corrupt)?;
        if self.line.is_empty() {
            return Ok(false);
        }
        if self.line.pop() != Some(b'\n') {
            return Err(Error::corrupt(format!("tar-split line {} does not end", self.number)));
        }
        Ok(true)
    }

    fn parse(&self) -> Result<Line> {
        parse_line(&self.line)
            .map_err(|what| Error::corrupt(format!("tar-split line {}: {what}", self.number)))
    }
}

/// What a decoder calls invalid data is damage of ours.
fn corrupt(error: Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidData => error.with_kind(ErrorKind::Corrupt),
        _ => error,
    }
}

/// Parses one line. Pure.
pub(super) fn parse_line(text: &[u8]) -> Result<Line, String> {
    // An array would be taken field by field.
    if !text.starts_with(b"{") {
        return Err("not an object".to_owned());
    }
    let line: Json<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|error| format!("payload: {error}"));
    let name = |text: Text<'_>, raw: &Text<'_>| match raw {
        Text(Some(raw)) => decode(raw).map(Some),
        Text(None) => Ok(text.0.map(|text| text.into_owned().into_bytes())),
    };
    let payload = line.payload.0.as_deref().unwrap_or_default();
    match line.kind {
        2 => Ok(Line::Segment(decode(payload)?)),
        4 => Ok(Line::Content(decode(payload)?)),
        1 | 3 => {
            let size = u64::try_from(line.size).map_err(|_| "size is negative".to_owned())?;
            let payload = decode(payload)?;
            let crc: Option<[u8; 8]> = match payload.len() {
                0 => None,
                _ => Some(payload.try_into().map_err(|_| "payload is not a CRC-64".to_owned())?),
            };
            let map = match line.sparse.0.as_deref() {
                None => None,
                Some(text) => Some(sparse::parse(text).ok_or("sparse map is malformed")?),
            };
            if let Some(map) = &map {
                let stored = map.iter().try_fold(0u64, |sum, (_, length)| sum.checked_add(*length));
                let stored = stored.ok_or("sparse map is out of range")?;
                sparse::check(&mut map.clone(), stored, size)?;
            }
            if line.kind == 3 {
                let (crc, map) = crc.zip(map).ok_or("replaced content without CRC or map")?;
                return Ok(Line::Replaced { size, crc, map });
            }
            let path = name(line.path, &line.path_raw)?;
            let name = name(line.name, &line.name_raw)?.unwrap_or_default();
            Ok(Line::Entry(Record { name, path, size, crc, sparse: map }))
        }
        _ => Ok(Line::Other),
    }
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(rename = "type", default)]
    kind: i64,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    name_raw: Text<'a>,
    #[serde(default)]
    size: i64,
    #[serde(borrow, default)]
    path: Text<'a>,
    #[serde(borrow, default)]
    path_raw: Text<'a>,
    #[serde(borrow, default)]
    payload: Text<'a>,
    #[serde(borrow, default)]
    sparse: Text<'a>,
}

/// A string or null, borrowed where it can be.
#[derive(Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or null")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }
            fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
