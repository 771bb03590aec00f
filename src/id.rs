// SPDX-License-Identifier: MulanPSL-2.0
//! Typed ids of layers, images and containers: each is one path component by construction.
//!
//! An id is 1-255 bytes of UTF-8, has no `/` and no NUL and does not start with `.` (names that start with a dot
//! are ours: staging, trash, quarantine). What the reference makes itself is always 64 lower-case hex digits
//! ([`is_canonical`]); only those are listed after a restart.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Longest id in bytes: the longest file name of Linux file systems.
pub const MAX_LEN: usize = 255;

/// Whether `text` is 64 lower-case hexadecimal digits, the form that survives a restart.
pub fn is_canonical(text: &str) -> bool {
    text.len() == crate::digest::HEX_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is 3 to 64 lower-case hexadecimal digits: a short id that a person may type.
pub fn is_short(text: &str) -> bool {
    (3..=crate::digest::HEX_LEN).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn check(what: &str, text: &str) -> Result<()> {
    let why = if text.is_empty() {
        "it is empty"
    } else if text.len() > MAX_LEN {
        "it is longer than 255 bytes"
    } else if text.starts_with('.') {
        "it starts with a dot"
    } else if text.contains('/') {
        "it contains a slash"
    } else if text.contains('\0') {
        "it contains a NUL byte"
    } else {
        return Ok(());
    };
    let shown: String = text.chars().take(80).collect();
    Err(Error::new(ErrorKind::InvalidArgument, format!("{what} {shown:?} is not valid: {why}")))
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes an id of it.
            pub fn new(text: &str) -> Result<Self> {
                check($what, text)?;
                Ok($name(text.into()))
            }

            /// The id as text; one path component.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                std::path::Path::new(self.as_str())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                $name::new(text)
            }
        }
    };
}

id_type!(
    /// Id of a layer: for image layers the hex of the chain ID, for a container's writable layer the container id.
    LayerId,
    "layer id"
);
id_type!(
    /// Id of an image: the hex of the digest of its config.
    ImageId,
    "image id"
);
id_type!(
    /// Id of a container, which is the id of its root file system record.
    ContainerId,
    "container id"
);

impl From<crate::digest::Digest> for LayerId {
    fn from(chain_id: crate::digest::Digest) -> Self {
        LayerId(chain_id.hex().into())
    }
}

impl From<crate::digest::Digest> for ImageId {
    fn from(config: crate::digest::Digest) -> Self {
        ImageId(config.hex().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_path_component() {
        for good in ["a", "abc", &"f".repeat(64), "with space", "ü", &"x".repeat(255), "-x", "a..b"] {
            assert!(LayerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "../x", "/", "a\0b", &"x".repeat(256)] {
            let error = LayerId::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn short_and_canonical_forms() {
        assert!(is_canonical(&"0a".repeat(32)));
        assert!(!is_canonical(&"0A".repeat(32)));
        assert!(!is_canonical("0a"));
        assert!(is_short("abc") && is_short(&"a".repeat(64)));
        assert!(!is_short("ab") && !is_short("abg") && !is_short("") && !is_short(&"a".repeat(65)));
    }
}
