// SPDX-License-Identifier: MulanPSL-2.0
//! Where the files of an image archive lie in it: one pass over the headers of an uncompressed tar.
//!
//! An image archive names its layers in a file at its end and may hold them as symbolic links to each other, so it is
//! read by offset. Only what image archives are made of is known here (ustar, GNU and PAX names and sizes); layers are
//! read by [`crate::archive`].

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{During, Error, ErrorKind, Result};

const BLOCK: u64 = 512;
const BLOCK_LEN: usize = 512;
/// Longest PAX header or GNU long name.
const MAX_EXTENDED: u64 = 1 << 20;
/// Most entries: a layout of 128 layers has a few hundred.
const MAX_ENTRIES: usize = 100_000;
/// Most bytes that all names and link targets may hold together.
const MAX_NAMES: usize = 32 << 20;
/// Longest chain of links.
const MAX_LINKS: usize = 8;

/// A file in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Where its content starts.
    pub(super) offset: u64,
    /// Its length in bytes.
    pub(super) len: u64,
}

#[derive(Debug)]
enum Entry {
    File(Span),
    /// Name of the entry with the content.
    Link(String),
}

/// The files of an archive by name, without leading `./`.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<String, Entry>,
}

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

fn malformed(at: u64, why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("tar header at byte {at}: {why}"))
}

impl Index {
    /// Reads all headers of `file`. A file that ends within an entry is `InvalidData`.
    pub(super) fn read(file: &File) -> Result<Index> {
        let end = file.metadata().during(|| "ask for the size of the archive")?.len();
        let mut index = Index::default();
        let mut extended = Extended::default();
        let mut names = 0usize;
        let mut at = 0u64;
        while at < end {
            let mut block = [0u8; BLOCK_LEN];
            if end - at < BLOCK {
                return Err(malformed(at, "the archive is truncated"));
            }
            file.read_exact_at(&mut block, at).during(|| format!("read the archive at byte {at}"))?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(index);
            }
            let header = Header::parse(&block).ok_or_else(|| malformed(at, "it is not a tar header"))?;
            let data = at + BLOCK;
            let real = !matches!(header.kind, b'x' | b'g' | b'L' | b'K');
            let size = extended.size.filter(|_| real).unwrap_or(header.size);
            // Only of regular files and extended headers is there data; links may state the size of their target.
            let stored =
                if matches!(header.kind, b'1' | b'2' | b'3' | b'4' | b'5' | b'6') { 0 } else { size };
            let next = stored
                .checked_next_multiple_of(BLOCK)
                .and_then(|padded| data.checked_add(padded))
                .ok_or_else(|| malformed(at, "it has an impossible size"))?;
            if data + stored > end {
                return Err(malformed(
                    at,
                    "the archive is truncated: the content of this entry is not all there",
                ));
            }
            if real {
                let path = extended.path.take().unwrap_or(header.path);
                let link = extended.link.take().unwrap_or(header.link);
                extended = Extended::default();
                names += path.len() + link.len();
                index.take(at, header.kind, &path, &link, Span { offset: data, len: size })?;
                if index.entries.len() > MAX_ENTRIES || names > MAX_NAMES {
                    let message =
                        format!("the archive has more than {MAX_ENTRIES} entries or names too long");
                    return Err(Error::new(ErrorKind::LimitExceeded, message));
                }
            } else if header.kind != b'g' {
                extended.read(file, at, header.kind, Span { offset: data, len: size })?;
            }
            at = next;
        }
        Ok(index)
    }

    fn take(&mut self, at: u64, kind: u8, path: &[u8], link: &[u8], span: Span) -> Result<()> {
        let entry = match kind {
            b'0' | 0 | b'7' => Entry::File(span),
            b'1' => match text(link).and_then(|target| resolve("", target)) {
                Some(target) => Entry::Link(target),
                None => return Ok(()),
            },
            b'2' => {
                let dir = text(path).and_then(|path| path.rsplit_once('/')).map_or("", |(dir, _)| dir);
                match text(link).and_then(|target| resolve(dir, target)) {
                    Some(target) => Entry::Link(target),
                    // It leads out of the archive; nothing of it is ever opened.
                    None => return Ok(()),
                }
            }
            b'S' => return Err(malformed(at, "sparse files are not expected in an image archive")),
            _ => return Ok(()),
        };
        if let Some(name) = text(path).and_then(|path| resolve("", path)) {
            // A later entry replaces an earlier one, as unpacking would.
            self.entries.insert(name, entry);
        }
        Ok(())
    }

    /// Where the content of `name` lies, links followed.
    pub(super) fn find(&self, name: &str) -> Option<Span> {
        let mut name = resolve("", name)?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(&name)? {
                Entry::File(span) => return Some(*span),
                Entry::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// The directory, at most one deep, that holds a file of this name: `""` at the top, else `dir/`.
    pub(super) fn prefix_of(&self, name: &str) -> Option<String> {
        if self.entries.contains_key(name) {
            return Some(String::new());
        }
        let mut found = self.entries.keys().filter_map(|path| {
            let dir = path.strip_suffix(name)?.strip_suffix('/')?;
            (!dir.contains('/')).then(|| format!("{dir}/"))
        });
        let only = found.next()?;
        found.next().is_none().then_some(only)
    }
}

impl Extended {
    fn read(&mut self, file: &File, at: u64, kind: u8, span: Span) -> Result<()> {
        if span.len > MAX_EXTENDED {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("tar header at byte {at}: an extended header of {} bytes", span.len),
            ));
        }
        let len = usize::try_from(span.len).map_err(|_| malformed(at, "it has an impossible size"))?;
        let mut content = vec![0; len];
        file.read_exact_at(&mut content, span.offset).during(|| format!("read the archive at byte {at}"))?;
        let until_nul = |bytes: Vec<u8>| bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            b'L' => self.path = Some(until_nul(content)),
            b'K' => self.link = Some(until_nul(content)),
            _ => self.take_pax(at, &content)?,
        }
        Ok(())
    }

    fn take_pax(&mut self, at: u64, mut rest: &[u8]) -> Result<()> {
        let bad = || malformed(at, "malformed PAX record");
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let len: usize =
                rest.get(..space).and_then(text).and_then(|digits| digits.parse().ok()).ok_or_else(bad)?;
            let record = rest.get(space + 1..len).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
            rest = rest.get(len..).ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    self.size = Some(text(value).and_then(|digits| digits.parse().ok()).ok_or_else(bad)?);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(malformed(at, "sparse files are not expected in an image archive"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

struct Header {
    path: Vec<u8>,
    link: Vec<u8>,
    size: u64,
    kind: u8,
}

impl Header {
    fn parse(block: &[u8; BLOCK_LEN]) -> Option<Header> {
        let field = |from: usize, len: usize| block.get(from..from + len);
        let stated = number(field(148, 8)?)?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if sum != stated {
            return None;
        }
        let text = |from, len| Some(field(from, len)?.split(|byte| *byte == 0).next()?.to_vec());
        let mut path = text(0, 100)?;
        // Only POSIX headers (`ustar` and a NUL) have a prefix.
        if field(257, 6)? == b"ustar\0" {
            let prefix = text(345, 155)?;
            if !prefix.is_empty() {
                path = [prefix.as_slice(), b"/", path.as_slice()].concat();
            }
        }
        Some(Header { path, link: text(157, 100)?, size: number(field(124, 12)?)?, kind: *block.get(156)? })
    }
}

/// An octal number, or a binary one with the top bit set (GNU).
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            value.checked_mul(256)?.checked_add(u64::from(*byte))
        });
    }
    let digits = text(field)?.trim_matches(['\0', ' ']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// `path` seen from `dir`, without `.` and `..`; `None` when it is absolute or leads out.
fn resolve(dir: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    fn index_of(args: &[&str], make: impl FnOnce(&std::path::Path)) -> (File, Index) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        make(&tree);
        let archive = dir.path().join("a.tar");
        let status = Command::new("tar")
            .args(args)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .status()
            .unwrap();
        assert!(status.success());
        let file = File::open(archive).unwrap();
        let index = Index::read(&file).unwrap();
        (file, index)
    }

    fn content(file: &File, index: &Index, name: &str) -> Option<Vec<u8>> {
        let span = index.find(name)?;
        let mut bytes = vec![0; usize::try_from(span.len).unwrap()];
        file.read_exact_at(&mut bytes, span.offset).unwrap();
        Some(bytes)
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test's own files")]
    fn files_and_links_are_found_in_every_format_of_gnu_tar() {
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        for format in ["--format=v7", "--format=oldgnu", "--format=gnu", "--format=ustar", "--format=posix"] {
            let takes_long = !matches!(format, "--format=v7");
            let (file, index) = index_of(&[format], |tree| {
                std::fs::create_dir_all(tree.join("a/b")).unwrap();
                std::fs::write(tree.join("a/one"), b"first").unwrap();
                std::fs::write(tree.join("two"), vec![7u8; 1000]).unwrap();
                std::os::unix::fs::symlink("../one", tree.join("a/b/rel")).unwrap();
                std::os::unix::fs::symlink("/two", tree.join("abs")).unwrap();
                std::os::unix::fs::symlink("../../../two", tree.join("a/b/out")).unwrap();
                std::os::unix::fs::symlink("loop", tree.join("loop")).unwrap();
                std::fs::hard_link(tree.join("two"), tree.join("zwei")).unwrap();
                if takes_long {
                    std::fs::create_dir(tree.join("d".repeat(90))).unwrap();
                    std::fs::write(tree.join(&long), b"long").unwrap();
                }
            });
            assert_eq!(content(&file, &index, "a/one").unwrap(), b"first", "{format}");
            assert_eq!(content(&file, &index, "./a/../a/one").unwrap(), b"first", "{format}");
            assert_eq!(content(&file, &index, "two").unwrap(), [7u8; 1000], "{format}");
            assert_eq!(content(&file, &index, "zwei").unwrap(), [7u8; 1000], "{format}");
            assert_eq!(content(&file, &index, "a/b/rel").unwrap(), b"first", "{format}");
            for nothing in ["abs", "a/b/out", "loop", "a", "", "..", "/two", "three"] {
                assert!(index.find(nothing).is_none(), "{format} {nothing}");
            }
            if takes_long {
                assert_eq!(content(&file, &index, &long).unwrap(), b"long", "{format}");
            }
            assert_eq!(index.prefix_of("two"), Some(String::new()));
            assert_eq!(index.prefix_of("one"), Some("a/".to_owned()));
            assert_eq!(index.prefix_of("rel"), None, "two deep");
        }
    }

    fn read(bytes: &[u8]) -> Result<Index> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Index::read(&file)
    }

    #[test]
    fn what_is_not_a_whole_tar_is_refused() {
        let (file, _) = index_of(&[], |tree| {
            #[allow(clippy::disallowed_methods, reason = "a test's own files")]
            std::fs::write(tree.join("f"), vec![1u8; 3000]).unwrap();
        });
        let mut whole = vec![0; 5120];
        file.read_exact_at(&mut whole, 0).unwrap();
        assert!(read(&whole).is_ok());
        assert!(read(b"").unwrap().entries.is_empty());
        for len in [100, 512 + 100, 1024 + 2999] {
            assert_eq!(read(&whole[..len]).unwrap_err().kind(), ErrorKind::InvalidData, "{len}");
        }
        whole[3] ^= 1;
        assert_eq!(read(&whole).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read(&[b'x'; 2048]).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
