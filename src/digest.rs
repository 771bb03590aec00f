// SPDX-License-Identifier: MulanPSL-2.0
//! Digests: `sha256:<64 lower-case hex>`, and the chain IDs made of them.
//!
//! Source: OCI image specification, "Digests" and "Layer ChainID".

use std::fmt;
use std::io;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Length of the hexadecimal part of a SHA-256 digest.
pub const HEX_LEN: usize = 64;
const PREFIX: &str = "sha256:";

/// A SHA-256 digest. Checked when made; `Display` gives `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Parses `sha256:<64 lower-case hex>`; other algorithms and upper case are refused.
    pub fn parse(text: &str) -> Result<Self> {
        let hex = text.strip_prefix(PREFIX).ok_or_else(|| {
            Error::invalid(format!("parse digest {text:?}: it does not start with sha256:"))
        })?;
        Digest::from_hex(hex)
    }

    /// Parses 64 lower-case hexadecimal characters.
    pub fn from_hex(hex: &str) -> Result<Self> {
        let bytes = decode_hex(hex).ok_or_else(|| {
            Error::invalid(format!("parse digest {hex:?}: it is not 64 lower-case hex digits"))
        })?;
        Ok(Digest(bytes))
    }

    /// The 64 hexadecimal characters without the algorithm.
    pub fn hex(&self) -> String {
        self.hex_digits().iter().copied().map(char::from).collect()
    }

    /// The same in ASCII, without an allocation.
    pub fn hex_digits(&self) -> [u8; HEX_LEN] {
        let mut digits = [0; HEX_LEN];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
        }
        digits
    }

    /// What `Display` gives, in ASCII, without an allocation.
    pub fn text(&self) -> [u8; PREFIX.len() + HEX_LEN] {
        let mut text = [0; PREFIX.len() + HEX_LEN];
        let (prefix, digits) = text.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        digits.copy_from_slice(&self.hex_digits());
        text
    }

    /// The chain ID of a layer with this diff ID on top of `parent`'s chain ID.
    #[must_use]
    pub fn chained_on(self, parent: Option<Digest>) -> Digest {
        match parent {
            None => self,
            Some(parent) => Digest::of(format!("{parent} {self}").as_bytes()),
        }
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Digest::parse(text)
    }
}

/// The chain IDs of a stack of layers, base first: one for each diff ID.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut parent = None;
    diff_ids
        .iter()
        .map(|diff_id| {
            let chain_id = diff_id.chained_on(parent);
            parent = Some(chain_id);
            chain_id
        })
        .collect()
}

/// Computes a digest piece by piece.
#[derive(Clone, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// A digester that has seen nothing.
    pub fn new() -> Self {
        Digester::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes seen.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl io::Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn decode_hex(hex: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if hex.len() != HEX_LEN {
        return None;
    }
    let mut bytes = [0u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_sha256_in_lower_case_only() {
        let good = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap().to_string(), good);
        assert_eq!(Digest::parse(&good).unwrap().text(), good.as_bytes());
        for bad in [
            "",
            "sha256:",
            "a1",
            &"a1".repeat(32),
            &format!("sha512:{}", "a1".repeat(32)),
            &format!("sha256:{}", "A1".repeat(32)),
            &format!("sha256:{}0", "a1".repeat(32)),
            &format!("sha256:{}é", "a1".repeat(31)),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_ids_match_known_vectors() {
        let diff = |hex: &str| Digest::from_hex(hex).unwrap();
        let chain = chain_ids(&[
            diff("643a3f3368bb6157351905a5d56cc5432917034473228bae895f0c77cd21e839"),
            diff("cabccd48ce5a59fd17425e39280c66953b2d3df9234064ad99d8fc9b5638b886"),
        ]);
        assert_eq!(chain[0].hex(), "643a3f3368bb6157351905a5d56cc5432917034473228bae895f0c77cd21e839");
        assert_eq!(chain[1].hex(), "8723d40f385ceb3b90cf5ea67be39d528b6539a80e551f4b19f27e44f2a4c348");
        assert!(chain_ids(&[]).is_empty());
    }
}
