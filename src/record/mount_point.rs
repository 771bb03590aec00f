// SPDX-License-Identifier: MulanPSL-2.0
//! Mount state of a layer, below the run root.

use crate::error::{During, ErrorKind, Result};
use crate::json;

/// How often a layer is mounted, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountPointRecord {
    /// Never written by the reference.
    pub id: Option<String>,
    /// How often it is mounted.
    pub count: i32,
    /// Where.
    pub path: Option<String>,
}

impl MountPointRecord {
    /// Reads the text of a record. What does not parse is `Corrupt`; a valid text of another shape gives an empty
    /// record, as in the reference.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text).map_err(|error| error.with_kind(ErrorKind::Corrupt)).during(|| "read mount record")
    }

    fn read(text: &[u8]) -> Result<Self> {
        let value = json::parse(text)?;
        Ok(MountPointRecord {
            id: value.string("id"),
            count: value.int32("count")?,
            path: value.string("path"),
        })
    }

    /// Writes the record as the reference does.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let text = json::to_text(|w| {
            w.string("id", self.id.as_deref());
            w.signed("count", self.count);
            w.string("path", self.path.as_deref());
        });
        super::within_limit(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_reference_are_written_byte_for_byte() {
        // Written by a real iSulad daemon, and how it leaves one after the last umount.
        for text in [
            include_str!("../../tests/golden/records/mount-point.json"),
            "{\n    \"path\": \"/var/lib/isulad/storage/overlay/x/merged\"\n}\n",
        ] {
            let record = MountPointRecord::parse(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(record.to_json().unwrap()).unwrap(), text);
            assert!(record.path.is_some());
        }
    }

    #[test]
    fn a_count_out_of_range_is_corrupt() {
        let error = MountPointRecord::parse(br#"{"count":2147483648}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(MountPointRecord::parse(b"[]").unwrap(), MountPointRecord::default());
    }
}
