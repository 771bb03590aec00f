// SPDX-License-Identifier: MulanPSL-2.0
//! Platforms: what this program runs on, and which image fits.

use std::fmt;

pub use super::descriptor::Platform;
use crate::error::{Error, Result};

impl Platform {
    /// The platform this library was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform::of("linux", architecture, variant)
    }

    fn of(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            ..Platform::default()
        }
    }

    /// Reads `os/architecture[/variant]` as people write it.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture] if parts.iter().all(|part| !part.is_empty()) => {
                Ok(Platform::of(os, architecture, None))
            }
            [os, architecture, variant] if parts.iter().all(|part| !part.is_empty()) => {
                Ok(Platform::of(os, architecture, Some(variant)))
            }
            _ => Err(Error::invalid(format!(
                "parse platform {text:?}: it is not os/architecture or os/architecture/variant"
            ))),
        }
    }

    /// How well an image for `self` runs on `wanted`: `None` not at all, greater is better.
    pub(super) fn fitness(&self, wanted: &Platform) -> Option<(u8, &str)> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        match (self.variant.as_deref(), wanted.variant.as_deref()) {
            (mine, wanted) if mine == wanted => Some((2, "")),
            // arm64 without a variant is v8.
            (None, Some("v8")) | (Some("v8"), None) => Some((2, "")),
            (None, _) | (_, None) => Some((1, "")),
            // An older variant of the same processor.
            (Some(mine), Some(wanted)) if mine < wanted => Some((0, mine)),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_written_as_they_are_read() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/", "a/b/c/d"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_fits_its_own_processor_and_newer_variants_of_it() {
        let fits = |image: &str, wanted: &str| {
            let (image, wanted) = (Platform::parse(image).unwrap(), Platform::parse(wanted).unwrap());
            image.fitness(&wanted).map(|(rank, _)| rank)
        };
        let table = [
            ("linux/amd64", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/arm64", None),
            ("windows/amd64", "linux/amd64", None),
            ("linux/arm64", "linux/arm64/v8", Some(2)),
            ("linux/arm64/v8", "linux/arm64", Some(2)),
            ("linux/arm", "linux/arm/v7", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", None),
        ];
        for (image, wanted, rank) in table {
            assert_eq!(fits(image, wanted), rank, "{image} on {wanted}");
        }
    }
}
