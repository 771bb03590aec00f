// SPDX-License-Identifier: MulanPSL-2.0
//! Signed varints as Go's `binary.PutVarint` writes them: zigzag, seven bits a byte, the low ones first.

/// Longest varint of 64 bits.
const LONGEST: usize = 10;

/// The bytes of a number.
pub(super) fn encode(number: i64) -> Vec<u8> {
    let mut left = (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned();
    let mut bytes = Vec::with_capacity(LONGEST);
    loop {
        let [low, ..] = left.to_le_bytes();
        left >>= 7;
        if left == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The number that the bytes begin with; `None`: they end too soon, or it does not fit.
pub(super) fn decode(bytes: &[u8]) -> Option<i64> {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(LONGEST) {
        // The tenth byte has the last bit.
        if at == LONGEST - 1 && *byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_those_of_the_original() {
        let table: [(i64, &[u8]); 9] = [
            (0, &[0x00]),
            (1, &[0x02]),
            (-1, &[0x01]),
            (63, &[0x7e]),
            (64, &[0x80, 0x01]),
            (300, &[0xd8, 0x04]),
            (1 << 40, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (number, bytes) in table {
            assert_eq!(encode(number), bytes, "{number}");
            assert_eq!(decode(bytes), Some(number), "{number}");
            assert_eq!(decode(&[bytes, &[0xff, 7]].concat()), Some(number), "what follows does not matter");
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None, "{number} cut short");
        }
    }

    #[test]
    fn varints_that_are_too_long_are_none() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0xff; 9]), None);
        assert_eq!(decode(&[0xff; 11]), None);
        assert_eq!(decode(&[[0xff; 9].as_slice(), &[2]].concat()), None);
        assert_eq!(decode(&[[0x80; 10].as_slice(), &[0]].concat()), None);
        assert_eq!(decode(&[0x80, 0x00]), Some(0), "more bytes than needed are fine");
    }
}
