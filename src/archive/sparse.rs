// SPDX-License-Identifier: MulanPSL-2.0
//! Maps of sparse files: which regions of the expanded file lie in the archive, one after the other.
//!
//! Pure.

use crate::archive::pax::decimal;

/// A region of data: offset in the expanded file and length.
pub(super) type Region = (u64, u64);

/// Refuses a map that overlaps, goes backwards, exceeds the file, or does not add up to what the archive stores.
/// Regions of no length are dropped.
pub(super) fn check(map: &mut Vec<Region>, stored: u64, size: u64) -> Result<(), &'static str> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for (offset, length) in map.iter() {
        if *offset < end {
            return Err("sparse map overlaps itself");
        }
        end = offset.checked_add(*length).ok_or("sparse map is out of range")?;
        sum = sum.checked_add(*length).ok_or("sparse map is out of range")?;
    }
    if end > size {
        return Err("sparse map exceeds the file");
    }
    if sum != stored {
        return Err("sparse map does not add up to the stored size");
    }
    map.retain(|(_, length)| *length != 0);
    Ok(())
}

/// `offset,length,offset,length`: the form of `GNU.sparse.map`, and of the key `sparse` in our tar-split lines.
pub(super) fn parse(text: &str) -> Option<Vec<Region>> {
    let mut map = Vec::new();
    let mut numbers = text.split(',');
    while let Some(offset) = numbers.next().filter(|text| !text.is_empty()) {
        map.push((decimal(offset.as_bytes())?, decimal(numbers.next()?.as_bytes())?));
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_fit_the_file() {
        let table: &[(&[Region], u64, u64, bool)] = &[
            (&[], 0, 0, true),
            (&[], 0, 1 << 40, true),
            (&[(0, 5), (5, 5)], 10, 10, true),
            (&[(0, 5), (10, 0)], 5, 10, true),
            (&[(0, 5), (4, 5)], 10, 10, false),
            (&[(5, 5), (0, 5)], 10, 10, false),
            (&[(0, 11)], 11, 10, false),
            (&[(u64::MAX, 1)], 1, u64::MAX, false),
            (&[(0, 5)], 6, 10, false),
            (&[(11, 0)], 0, 10, false),
        ];
        for (map, stored, size, good) in table {
            assert_eq!(check(&mut map.to_vec(), *stored, *size).is_ok(), *good, "{map:?}");
        }
    }
}
