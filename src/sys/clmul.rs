// SPDX-License-Identifier: MulanPSL-2.0
//! Multiplication without carries, where the processor has it.

/// Bytes folded at once, as words in little-endian order.
pub(crate) type Block = [[u8; 8]; 8];

/// Moves `lanes` (64 bytes, bit-reflected polynomials of which the first word holds the highest powers) over `blocks`: each step
/// multiplies by x^512 and adds the next block. `by` is x^575 and x^511 modulo the polynomial: for the first and the second word
/// of each pair, one power less for the bit by which reflected products are too short. The lanes are congruent to everything seen,
/// not reduced. False when the processor cannot; then nothing was done.
#[must_use]
pub(crate) fn fold(lanes: &mut [u64; 8], blocks: &[Block], by: [u64; 2]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("pclmulqdq") {
        // SAFETY: the processor has it.
        unsafe { x86::fold(lanes, blocks, by) };
        return true;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (lanes, blocks, by);
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_unpackhi_epi64, _mm_xor_si128,
    };

    use super::Block;

    #[target_feature(enable = "pclmulqdq")]
    fn pair(first: u64, second: u64) -> __m128i {
        _mm_set_epi64x(second.cast_signed(), first.cast_signed())
    }

    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn fold(lanes: &mut [u64; 8], blocks: &[Block], by: [u64; 2]) {
        let by = pair(by[0], by[1]);
        let [a, b, c, d, e, f, g, h] = *lanes;
        let mut sums = [pair(a, b), pair(c, d), pair(e, f), pair(g, h)];
        for block in blocks {
            let (words, _) = block.as_chunks::<2>();
            for (sum, [first, second]) in sums.iter_mut().zip(words) {
                let moved = _mm_xor_si128(
                    _mm_clmulepi64_si128::<0x00>(*sum, by),
                    _mm_clmulepi64_si128::<0x11>(*sum, by),
                );
                *sum = _mm_xor_si128(moved, pair(u64::from_le_bytes(*first), u64::from_le_bytes(*second)));
            }
        }
        for (lanes, sum) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
            let upper = _mm_unpackhi_epi64(sum, sum);
            *lanes = [_mm_cvtsi128_si64(sum).cast_unsigned(), _mm_cvtsi128_si64(upper).cast_unsigned()];
        }
    }
}
