// SPDX-License-Identifier: MulanPSL-2.0
//! CRC-64/ISO as tar-split uses it: initial and final complement, eight bytes big-endian.
//!
//! A hole of a sparse file goes into the sum without being read: n zero bytes multiply the register by x^(8n).

use crc::{CRC_64_GO_ISO, Crc, Table};

static TABLE: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// The polynomial with its bits reflected, bit 63 being x^0.
const POLYNOMIAL: u64 = 0xD800_0000_0000_0000;

/// A sum in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc64 {
    register: u64,
}

impl Crc64 {
    pub(super) fn new() -> Self {
        Crc64 { register: !0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        // The crate takes and gives the register in the catalogue's form: unreflected in, complemented out.
        let mut digest = TABLE.digest_with_initial(self.register.reverse_bits());
        digest.update(bytes);
        self.register = !digest.finalize();
    }

    /// Takes `count` zero bytes in logarithmic time.
    pub(super) fn update_zeros(&mut self, count: u64) {
        const ONE: u64 = 1 << 63;
        const BYTE: u64 = 1 << (63 - 8);
        let mut power = ONE;
        let mut square = BYTE;
        let mut rest = count;
        while rest != 0 {
            if rest & 1 == 1 {
                power = multiply(power, square);
            }
            square = multiply(square, square);
            rest >>= 1;
        }
        self.register = multiply(self.register, power);
    }

    pub(super) fn finish(self) -> [u8; 8] {
        (!self.register).to_be_bytes()
    }
}

/// The product of two reflected polynomials modulo [`POLYNOMIAL`].
fn multiply(left: u64, mut right: u64) -> u64 {
    let mut product = 0;
    let mut bit = 1u64 << 63;
    while bit != 0 {
        if left & bit != 0 {
            product ^= right;
        }
        right = if right & 1 == 1 { (right >> 1) ^ POLYNOMIAL } else { right >> 1 };
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    fn sum(bytes: &[u8]) -> String {
        let mut crc = Crc64::new();
        crc.update(bytes);
        STANDARD.encode(crc.finish())
    }

    #[test]
    fn sums_are_those_in_a_real_store() {
        for (content, payload) in
            [("one\n", "YULdjAAAAAA="), ("keep\n", "YV6i0trAAAA="), ("", "AAAAAAAAAAA=")]
        {
            assert_eq!(sum(content.as_bytes()), payload, "{content:?}");
        }
    }

    #[test]
    fn pieces_and_zeros_add_up() {
        let mut bytes = b"start".to_vec();
        bytes.resize(5 + 70_001, 0);
        bytes.extend_from_slice(b"end");
        let mut crc = Crc64::new();
        crc.update(b"sta");
        crc.update(b"rt");
        crc.update_zeros(70_000);
        crc.update_zeros(1);
        crc.update_zeros(0);
        crc.update(b"end");
        assert_eq!(STANDARD.encode(crc.finish()), sum(&bytes));
    }

    #[test]
    fn an_endless_hole_costs_nothing() {
        let mut crc = Crc64::new();
        crc.update_zeros(u64::MAX / 2);
        assert_ne!(crc.finish(), Crc64::new().finish());
    }
}
