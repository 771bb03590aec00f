// SPDX-License-Identifier: MulanPSL-2.0
//! Copying the content of one file: shared blocks if the file system can, else data without holes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::error::{During, Result};

/// Bytes moved at once when the kernel does not copy by itself.
const BUFFER: usize = 128 << 10;

/// Whether sharing blocks is worth a try: remembered from file to file of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reflink {
    /// Not known to fail.
    Try,
    /// The file systems cannot do it.
    Never,
}

/// Copies everything from `source` to the empty file `copy`.
pub(super) fn copy(source: &File, copy: &File, reflink: &mut Reflink) -> Result<()> {
    if *reflink == Reflink::Try {
        match ioctl_ficlone(copy, source) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => *reflink = Reflink::Never,
            // This file cannot; others may.
            Err(_) => {}
        }
    }
    let size = source.metadata().during(|| "look at it")?.len();
    let mut at = 0;
    while at < size {
        let Some((start, end)) = next_data(source, at, size)? else { break };
        copy_range(source, copy, start, end)?;
        at = end;
    }
    // Also makes a hole at the end.
    copy.set_len(size).during(|| "set the length of the copy")
}

/// The next stretch of data at or after `at`; `None` when only a hole is left.
fn next_data(source: &File, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    let start = match seek(source, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        Err(error) => return Err(error).during(|| "look for data"),
    };
    let end = seek(source, SeekFrom::Hole(start)).during(|| "look for a hole")?;
    Ok((start < size).then(|| (start, end.min(size))))
}

fn copy_range(source: &File, copy: &File, start: u64, end: u64) -> Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let length = usize::try_from(end - from).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(source, Some(&mut from), copy, Some(&mut to), length) {
            // Some file systems copy nothing and call it the end; reading decides.
            Ok(0) => return copy_by_hand(source, copy, from, end),
            Ok(_) | Err(Errno::INTR) => {}
            // Not between these two, not in this kernel, or forbidden: none of them says anything about the data.
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                return copy_by_hand(source, copy, from, end);
            }
            Err(error) => return Err(error).during(|| "copy data"),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &File, copy: &File, start: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(BUFFER);
        let room = buffer.get_mut(..wanted).unwrap_or_default();
        let count = match source.read_at(room, at) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).during(|| "read data"),
        };
        copy.write_all_at(room.get(..count).unwrap_or_default(), at).during(|| "write data")?;
        at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::TestRoot;
    use std::os::unix::fs::MetadataExt;

    fn sparse(root: &TestRoot) -> (File, Vec<u8>) {
        let open =
            |name| File::options().read(true).write(true).create_new(true).open(root.join(name)).unwrap();
        let file = open("source");
        let mut expected = vec![0; 3 << 20];
        for (at, byte) in [(0, 1u8), (1 << 20, 2), (2_500_000, 3)] {
            file.write_all_at(&[byte; 5000], at).unwrap();
            let at = usize::try_from(at).unwrap();
            expected[at..at + 5000].fill(byte);
        }
        file.set_len(3 << 20).unwrap();
        (file, expected)
    }

    #[test]
    fn holes_stay_holes_and_data_is_the_same() {
        for root in [TestRoot::new("content"), TestRoot::in_memory("content")] {
            let (source, expected) = sparse(&root);
            let target = File::create(root.join("copy")).unwrap();
            copy(&source, &target, &mut Reflink::Never).unwrap();
            assert_eq!(std::fs::read(root.join("copy")).unwrap(), expected);
            let (from, to) = (source.metadata().unwrap(), target.metadata().unwrap());
            assert!(to.blocks() <= from.blocks(), "{} {}", to.blocks(), from.blocks());
            assert!(to.blocks() * 512 < 1 << 20);
        }
    }

    #[test]
    fn without_the_kernels_help_the_copy_is_the_same() {
        let root = TestRoot::in_memory("content");
        let (source, expected) = sparse(&root);
        let target = File::create(root.join("copy")).unwrap();
        copy_by_hand(&source, &target, 0, 3 << 20).unwrap();
        assert_eq!(std::fs::read(root.join("copy")).unwrap(), expected);
    }

    #[test]
    fn a_file_that_shrank_is_copied_as_far_as_it_goes() {
        let root = TestRoot::in_memory("content");
        let (source, _) = sparse(&root);
        let target = File::create(root.join("copy")).unwrap();
        source.set_len(1000).unwrap();
        copy_by_hand(&source, &target, 0, 3 << 20).unwrap();
        assert_eq!(std::fs::read(root.join("copy")).unwrap(), [1; 1000]);
    }

    #[test]
    fn files_between_two_file_systems_are_copied() {
        let (disk, memory) = (TestRoot::new("content"), TestRoot::in_memory("content"));
        let (source, expected) = sparse(&disk);
        let mut reflink = Reflink::Try;
        let target = File::create(memory.join("copy")).unwrap();
        copy(&source, &target, &mut reflink).unwrap();
        assert_eq!(reflink, Reflink::Never);
        assert_eq!(std::fs::read(memory.join("copy")).unwrap(), expected);
    }
}
