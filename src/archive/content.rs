// SPDX-License-Identifier: MulanPSL-2.0
//! Reading the content of files of a layer.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::archive::crc::Crc64;
use crate::archive::sparse::Region;
use crate::error::{During, Result};

/// Pieces in which files are read.
pub(super) const BUFFER: usize = 256 << 10;

/// Where a file has data, as its file system says; all of it where that cannot say. Regions that touch are one.
pub(super) fn data_regions(file: &File, size: u64) -> Result<Vec<Region>> {
    let mut map = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno).during(|| "find data"),
        };
        if data == size {
            break;
        }
        let end = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(size),
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
            Err(errno) => return Err(errno).during(|| "find holes"),
        };
        if end <= data {
            // The file changes under our hands; what is read will tell.
            break;
        }
        map.push((data, end - data));
        at = end;
    }
    Ok(map)
}

/// Reads the regions of a file one after the other; `crc` gets the whole file of `size` bytes, what is between the
/// regions as zeros. The file begins at `start`.
pub(super) fn for_each_piece(
    file: &File,
    start: u64,
    size: u64,
    map: &[Region],
    buffer: &mut [u8],
    crc: &mut Crc64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut end = 0;
    for (offset, length) in map {
        crc.update_zeros(offset.saturating_sub(end));
        let mut at = *offset;
        end = offset.saturating_add(*length);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let space = buffer.get_mut(..most).unwrap_or_default();
            file.read_exact_at(space, start.saturating_add(at)).during(|| "read")?;
            crc.update(space);
            take(space)?;
            at += most as u64;
        }
    }
    crc.update_zeros(size.saturating_sub(end));
    Ok(())
}
