// SPDX-License-Identifier: MulanPSL-2.0
//! Names and small files of the overlay home, as text: no disk here.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::id::LayerId;

pub(super) const DIFF: &str = "diff";
pub(super) const WORK: &str = "work";
pub(super) const MERGED: &str = "merged";
pub(super) const EMPTY: &str = "empty";
pub(super) const LINK: &str = "link";
pub(super) const LOWER: &str = "lower";
/// Directory of the short names, in the home.
pub(super) const LINKS: &str = "l";
/// Block device node of the file system below, in the home.
pub(super) const BACKING_DEVICE: &str = "backingFsBlockDev";
/// Where the reference keeps shared read-only layers, in the home.
pub(super) const REMOTE: &str = crate::persist::SHARED;

/// Mode of a layer's directories, except `diff`.
pub(super) const PRIVATE_MODE: u32 = 0o700;
/// Mode of `diff`: users of a container that are not root have to pass it.
pub(super) const DIFF_MODE: u32 = 0o755;
/// Mode of `link` and `lower`.
pub(super) const FILE_MODE: u32 = 0o644;

/// Most lower layers of one mount: the kernel's own limit (`OVL_MAX_STACK`). The reference reads 128.
pub(super) const MAX_LOWERS: usize = 500;
/// Most bytes of a `link` or `lower` file that are read; 500 lowers need 14,499.
pub(super) const MAX_FILE: u64 = 1 << 16;

/// Whether an id would collide with something else in the home.
pub(super) fn is_reserved(id: &str) -> bool {
    matches!(id, LINKS | BACKING_DEVICE | REMOTE)
}

/// Short name of a layer in `l/`: 26 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LinkName([u8; LinkName::LEN]);

impl LinkName {
    pub(super) const LEN: usize = 26;

    /// Checks `text`, the content of a `link` file or an entry of `l/`; a newline at the end is tolerated.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        <[u8; Self::LEN]>::try_from(text.as_bytes())
            .ok()
            .filter(|name| name.iter().copied().all(hex))
            .map(LinkName)
    }

    pub(super) fn as_str(&self) -> &str {
        // They are digits.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Its path relative to the home.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(LINKS).join(self.as_str())
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkName").field(&self.as_str()).finish()
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LINKS}/{}", self.as_str())
    }
}

/// What `l/<name>` of a layer points to.
pub(super) fn link_target(id: &LayerId) -> PathBuf {
    Path::new("..").join(id).join(DIFF)
}

/// Whether `target` is what `l/<name>` of this layer points to.
pub(super) fn leads_to(target: &[u8], id: &LayerId) -> bool {
    target.strip_prefix(b"../").and_then(|target| target.strip_suffix(b"/diff"))
        == Some(id.as_str().as_bytes())
}

/// The layer that a link points to, if it is a link of ours.
pub(super) fn layer_of_target(target: &Path) -> Option<LayerId> {
    let id = target.to_str()?.strip_prefix("../")?.strip_suffix("/diff")?;
    LayerId::new(id).ok().filter(|id| !is_reserved(id.as_str()))
}

/// Parses a `lower` file: `l/<link>` joined by `:`, the direct parent first. An empty file is an error, because read as
/// the reference reads it, it makes the whole home a lower layer.
pub(super) fn parse_lower(content: &[u8]) -> Result<Vec<LinkName>> {
    let text = std::str::from_utf8(content).map_err(|_| Error::corrupt("it is not text"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() {
        return Err(Error::corrupt("it is empty"));
    }
    let mut lowers = Vec::with_capacity(text.len() / (LINKS.len() + LinkName::LEN) + 1);
    for item in text.split(':') {
        let name = item.strip_prefix("l/").filter(|name| !name.ends_with('\n')).and_then(LinkName::parse);
        lowers.push(name.ok_or_else(|| {
            let shown: String = item.chars().take(40).collect();
            Error::corrupt(format!("{shown:?} is not l/ and 26 hex digits"))
        })?);
    }
    check_depth(lowers.len())?;
    Ok(lowers)
}

/// Content of a `lower` file.
pub(super) fn format_lower(lowers: &[LinkName]) -> String {
    lowers.iter().map(ToString::to_string).collect::<Vec<_>>().join(":")
}

/// Refuses more lower layers than the kernel mounts.
pub(super) fn check_depth(lowers: usize) -> Result<()> {
    if lowers <= MAX_LOWERS {
        return Ok(());
    }
    Err(Error::invalid(format!("{lowers} lower layers: an overlay takes {MAX_LOWERS} at most")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const A: &str = "0123456789abcdef0123456789";
    const B: &str = "ffffffffffffffffffffffffff";

    #[test]
    fn a_link_name_is_26_lower_case_hex_digits() {
        assert_eq!(LinkName::parse(A).unwrap().as_str(), A);
        assert_eq!(LinkName::parse(&format!("{A}\n")).unwrap().as_str(), A);
        assert_eq!(LinkName::parse(A).unwrap().path(), Path::new("l").join(A));
        let upper = A.to_uppercase();
        let table =
            ["", "\n", &A[1..], &format!("{A}0"), &upper, &format!("{A}\n\n"), &format!(" {}", &A[1..])];
        for bad in table {
            assert!(LinkName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_lower_file_is_read_and_written_as_the_reference_does() {
        let text = format!("l/{A}:l/{B}");
        let lowers = parse_lower(text.as_bytes()).unwrap();
        assert_eq!(lowers, [LinkName::parse(A).unwrap(), LinkName::parse(B).unwrap()]);
        assert_eq!(format_lower(&lowers), text);
        assert_eq!(parse_lower(format!("{text}\n").as_bytes()).unwrap(), lowers);
    }

    #[test]
    fn a_lower_file_that_names_anything_else_is_refused() {
        let table: &[&str] = &[
            "",
            "\n",
            ":",
            "l/",
            A,
            &format!("l/{A}:"),
            &format!(":l/{A}"),
            &format!("l/{A}::l/{B}"),
            &format!("l/../{}", &A[3..]),
            &format!("l/{A}\n:l/{B}"),
            &format!("l/{A}/.."),
            &format!("/l/{A}"),
        ];
        for bad in table {
            assert_eq!(parse_lower(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{bad:?}");
        }
        assert!(parse_lower(b"\xff").is_err());
    }

    #[test]
    fn depth_ends_where_the_kernel_ends() {
        let lower = |n| vec![format!("l/{A}"); n].join(":");
        assert_eq!(parse_lower(lower(500).as_bytes()).unwrap().len(), 500);
        assert!(lower(500).len() < usize::try_from(MAX_FILE).unwrap());
        assert_eq!(parse_lower(lower(501).as_bytes()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn only_links_of_ours_name_a_layer() {
        let id = LayerId::new("abc").unwrap();
        assert_eq!(link_target(&id), Path::new("../abc/diff"));
        assert_eq!(layer_of_target(&link_target(&id)), Some(id.clone()));
        assert!(leads_to(link_target(&id).as_os_str().as_encoded_bytes(), &id));
        for other in [
            "",
            "../diff",
            "..//diff",
            "../a/b/diff",
            "../../diff",
            "/x/abc/diff",
            "../l/diff",
            "../abc/diff/",
        ] {
            assert_eq!(layer_of_target(Path::new(other)), None, "{other}");
            assert!(!leads_to(other.as_bytes(), &id), "{other}");
        }
    }
}
