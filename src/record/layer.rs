// SPDX-License-Identifier: MulanPSL-2.0
//! `layer.json`.

use crate::error::{During, ErrorKind, Result};
use crate::json;

/// The record of a layer. Absent members are `None`, empty, zero or false, as the reference reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerRecord {
    /// Layer id.
    pub id: Option<String>,
    /// Other names.
    pub names: Vec<String>,
    /// The layer it stands on.
    pub parent: Option<String>,
    /// Free text, never written by the reference.
    pub metadata: Option<String>,
    /// SELinux label.
    pub mount_label: Option<String>,
    /// When it was made.
    pub created: Option<String>,
    /// Digest of the compressed archive.
    pub compressed_diff_digest: Option<String>,
    /// Size of the compressed archive in bytes.
    pub compressed_size: i64,
    /// Digest of the uncompressed archive; its presence makes it an image layer.
    pub diff_digest: Option<String>,
    /// Sum of the entries' sizes in bytes.
    pub diff_size: i64,
    /// Never written by the reference.
    pub compression: u32,
    /// Still being made (`incompelte` on disk: the misspelling is the format).
    pub incomplete: bool,
    /// A container's layer.
    pub writable: bool,
}

impl LayerRecord {
    /// Reads the text of a record. What does not parse is `Corrupt`; a valid text of another shape gives an empty
    /// record, as in the reference.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text).map_err(|error| error.with_kind(ErrorKind::Corrupt)).during(|| "read layer record")
    }

    fn read(text: &[u8]) -> Result<Self> {
        let value = json::parse(text)?;
        Ok(LayerRecord {
            id: value.string("id"),
            names: value.strings("names"),
            parent: value.string("parent"),
            metadata: value.string("metadata"),
            mount_label: value.string("mountlabel"),
            created: value.string("created"),
            compressed_diff_digest: value.string("compressed-diff-digest"),
            compressed_size: value.int64("compressed-size")?,
            diff_digest: value.string("diff-digest"),
            diff_size: value.int64("diff-size")?,
            compression: value.uint32("compression")?,
            incomplete: value.flag("incompelte"),
            writable: value.flag("writable"),
        })
    }

    /// Writes the record as the reference does.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let text = json::to_text(|w| {
            w.string("id", self.id.as_deref());
            w.strings("names", &self.names);
            w.string("parent", self.parent.as_deref());
            w.string("metadata", self.metadata.as_deref());
            w.string("mountlabel", self.mount_label.as_deref());
            w.string("created", self.created.as_deref());
            w.string("compressed-diff-digest", self.compressed_diff_digest.as_deref());
            w.signed("compressed-size", self.compressed_size);
            w.string("diff-digest", self.diff_digest.as_deref());
            w.signed("diff-size", self.diff_size);
            w.unsigned("compression", self.compression);
            w.flag("incompelte", self.incomplete);
            w.flag("writable", self.writable);
        });
        super::within_limit(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by a real iSulad daemon.
    const RECORDS: [&str; 3] = [
        include_str!("../../tests/golden/records/layer-base.json"),
        include_str!("../../tests/golden/records/layer-child.json"),
        include_str!("../../tests/golden/records/layer-container.json"),
    ];

    #[test]
    fn records_of_the_reference_are_written_byte_for_byte() {
        for text in RECORDS {
            let record = LayerRecord::parse(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(record.to_json().unwrap()).unwrap(), text);
            assert!(record.id.is_some() && !record.incomplete);
            assert_eq!(record.writable, record.diff_digest.is_none());
        }
    }

    #[test]
    fn all_members_survive_in_the_order_of_the_schema() {
        let text = r#"{
    "id": "i",
    "names": [
        "n"
    ],
    "parent": "p",
    "metadata": "m",
    "mountlabel": "l",
    "created": "c",
    "compressed-diff-digest": "a",
    "compressed-size": 1,
    "diff-digest": "b",
    "diff-size": 2,
    "compression": 3,
    "incompelte": true,
    "writable": true
}
"#;
        let record = LayerRecord::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record.to_json().unwrap()).unwrap(), text);
    }

    #[test]
    fn odd_records_are_read_as_the_reference_does() {
        let odd = LayerRecord::parse(br#"{"id":[],"incompelte":"true","writable":1,"compressed-size":null}"#);
        assert_eq!(odd.unwrap(), LayerRecord::default());
        for bad in [r#"{"diff-size":1.5}"#, r#"{"compression":-1}"#, "x"] {
            assert_eq!(LayerRecord::parse(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }
}
