// SPDX-License-Identifier: MulanPSL-2.0
//! Times as Go's `Time.MarshalBinary` writes them.
//!
//! ```text
//! version 1   { 1, seconds since the year 1 i64, nanoseconds i32, minutes east of UTC i16 (-1: UTC) }, big-endian
//! version 2   the same, and seconds of the zone i8 behind it
//! ```

use crate::error::{Error, Result};
use crate::time::Timestamp;

/// From the first second of the year 1 to that of 1970.
const YEAR_1_TO_1970: i64 = 62_135_596_800;
/// Version, seconds, nanoseconds, zone.
const LENGTH: usize = 15;

/// The bytes of a time, in UTC.
pub(super) fn encode(time: Timestamp) -> Vec<u8> {
    let seconds = time.seconds.saturating_add(YEAR_1_TO_1970);
    let mut bytes = vec![1];
    bytes.extend_from_slice(&seconds.to_be_bytes());
    bytes.extend_from_slice(&time.nanos.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes
}

/// The time; its zone is only for showing it, and left out.
pub(super) fn decode(bytes: &[u8]) -> Result<Timestamp> {
    let bad = || Error::corrupt(format!("not a time: {}", super::shown(bytes)));
    let length = match bytes.first() {
        Some(1) => LENGTH,
        Some(2) => LENGTH + 1,
        _ => return Err(bad()),
    };
    if bytes.len() != length {
        return Err(bad());
    }
    let seconds = bytes.get(1..9).and_then(|part| part.try_into().ok()).map(i64::from_be_bytes);
    let nanos = bytes.get(9..13).and_then(|part| part.try_into().ok()).map(u32::from_be_bytes);
    let seconds = seconds.and_then(|seconds| seconds.checked_sub(YEAR_1_TO_1970));
    let nanos = nanos.filter(|nanos| *nanos < 1_000_000_000);
    seconds.zip(nanos).map(|(seconds, nanos)| Timestamp { seconds, nanos }).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_original() {
        // What Go makes of 2026-11-21T07:56:35.5Z, and of the same moment in a zone of +01:00 and of +00:19:32.
        let seconds = 1_795_247_795i64;
        let time = Timestamp { seconds, nanos: 500_000_000 };
        let encoded = encode(time);
        assert_eq!(encoded[0], 1);
        assert_eq!(encoded[1..9], (seconds + YEAR_1_TO_1970).to_be_bytes());
        assert_eq!(encoded[9..], [0x1d, 0xcd, 0x65, 0x00, 0xff, 0xff]);
        assert_eq!(decode(&encoded).unwrap(), time);
        let hour = [&encoded[..13], &[0, 60]].concat();
        assert_eq!(decode(&hour).unwrap(), time);
        let odd = [&[2], &encoded[1..13], &[0, 19, 32]].concat();
        assert_eq!(decode(&odd).unwrap(), time);
        assert_eq!(decode(&encode(Timestamp::default())).unwrap(), Timestamp::default());
        let zero = Timestamp { seconds: -YEAR_1_TO_1970, nanos: 0 };
        assert_eq!(encode(zero), [&[1][..], &[0; 12], &[0xff, 0xff]].concat());
    }

    #[test]
    fn what_is_no_time_is_an_error() {
        let good = encode(Timestamp::default());
        for bad in [
            &[][..],
            &good[..14],
            &[&good[..], &[0]].concat(),
            &[&[2], &good[1..]].concat(),
            &[&[3], &good[1..]].concat(),
            &[&good[..9], &[0xff; 6]].concat(),
            &[&[1, 0x80], &[0; 7][..], &good[9..]].concat(),
        ] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }
}
