// SPDX-License-Identifier: MulanPSL-2.0
//! Units as types: a number of bytes is not a number of inodes.

use std::fmt;

use crate::error::{Error, Result};

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// A number of inodes (files, directories and everything else that has one).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inodes(pub u64);

/// What a tree or a file system holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sum of the apparent sizes.
    pub bytes: Bytes,
    /// Number of entries.
    pub inodes: Inodes,
}

/// What is wrong with the text of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSize {
    /// It does not start with a digit.
    NoDigit,
    /// The unit is not known.
    UnknownUnit,
    /// More than one point, or nothing after it.
    Malformed,
    /// More bytes than an `i64` holds.
    TooLarge,
}

impl Bytes {
    /// Parses a size as iSulad does: digits, an optional fraction, an optional unit (`B K M G T P`, with `I`
    /// and/or `B` after it, any case); all units are powers of 1024. Units: bytes.
    pub fn parse(text: &str) -> Result<Self> {
        Bytes::parse_exact(text).map_err(|bad| {
            let why = match bad {
                BadSize::NoDigit => "it does not start with a digit",
                BadSize::UnknownUnit => "unknown unit",
                BadSize::Malformed => "malformed number",
                BadSize::TooLarge => "too large",
            };
            Error::invalid(format!("invalid size: '{text}': {why}"))
        })
    }

    /// The same, for callers that have words of their own for what is wrong.
    pub fn parse_exact(text: &str) -> Result<Self, BadSize> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(BadSize::NoDigit);
        }
        let shift = match unit.to_ascii_uppercase().as_str() {
            "" | "I" | "B" | "IB" => 0,
            "K" | "KI" | "KB" | "KIB" => 10,
            "M" | "MI" | "MB" | "MIB" => 20,
            "G" | "GI" | "GB" | "GIB" => 30,
            "T" | "TI" | "TB" | "TIB" => 40,
            "P" | "PI" | "PB" | "PIB" => 50,
            _ => return Err(BadSize::UnknownUnit),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
            return Err(BadSize::Malformed);
        }
        let whole: u64 = whole.parse().map_err(|_| BadSize::TooLarge)?;
        let whole = whole.checked_mul(1 << shift).ok_or(BadSize::TooLarge)?;
        // Below one unit a few digits decide; more than 18 cannot change the byte count.
        let digits: String = fraction.chars().take(18).collect();
        let part = match digits.parse::<u128>() {
            Ok(value) => {
                let scale = digits.chars().fold(1u128, |scale, _| scale * 10);
                u64::try_from((value << shift) / scale).map_err(|_| BadSize::TooLarge)?
            }
            Err(_) => 0,
        };
        let total = whole.checked_add(part).filter(|total| i64::try_from(*total).is_ok());
        total.map(Bytes).ok_or(BadSize::TooLarge)
    }
}

impl std::ops::Add for Bytes {
    type Output = Bytes;

    /// As many as can be told.
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
}

/// For people: `1.9 MiB`, `512 B`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut rest = self.0;
        let mut unit = "B";
        let mut tenths = 0;
        for name in UNITS {
            if rest < 1024 {
                break;
            }
            tenths = (rest % 1024) * 10 / 1024;
            rest /= 1024;
            unit = name;
        }
        write!(f, "{rest}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_as_the_reference_does() {
        let table = [
            ("0", 0),
            ("4096", 4096),
            ("1k", 1024),
            ("1KB", 1024),
            ("1KiB", 1024),
            ("1.5M", 1536 * 1024),
            ("10G", 10 << 30),
            ("2T", 2 << 40),
            ("1P", 1 << 50),
            ("7B", 7),
            ("7ib", 7),
        ];
        for (text, bytes) in table {
            assert_eq!(Bytes::parse(text).unwrap(), Bytes(bytes), "{text}");
        }
        for bad in
            ["", "-1", "k", "1x", "1.2.3", "1.", ".5", " 1", "1 K", "99999999999P", "9223372036854775808"]
        {
            assert!(Bytes::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(1024).to_string(), "1.0 KiB");
        assert_eq!(Bytes(1_983_677).to_string(), "1.8 MiB");
        assert_eq!(Bytes(5 << 30).to_string(), "5.0 GiB");
    }
}
