// SPDX-License-Identifier: MulanPSL-2.0
//! `images.json`.

use crate::error::{During, ErrorKind, Result};
use crate::json::{self, Map};

/// The record of an image. Absent members are `None` or empty, as the reference reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRecord {
    /// Image id.
    pub id: Option<String>,
    /// Digest by which it is searched.
    pub digest: Option<String>,
    /// Names, sorted and unique.
    pub names: Vec<String>,
    /// Top layer.
    pub layer: Option<String>,
    /// Never written by the reference, kept if present.
    pub mapped_layers: Vec<String>,
    /// Free text.
    pub metadata: Option<String>,
    /// Keys of big data, in order of insertion.
    pub big_data_names: Vec<String>,
    /// Sizes of big data in bytes; `None` when the member is absent.
    pub big_data_sizes: Option<Map<i64>>,
    /// Digests of big data; `None` when the member is absent.
    pub big_data_digests: Option<Map<String>>,
    /// When it was made.
    pub created: Option<String>,
    /// When it was loaded.
    pub loaded: Option<String>,
    /// Size in bytes, 0 when unknown.
    pub size: u64,
}

impl ImageRecord {
    /// Reads the text of a record. What does not parse is `Corrupt`; a valid text of another shape gives an empty
    /// record, as in the reference.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text).map_err(|error| error.with_kind(ErrorKind::Corrupt)).during(|| "read image record")
    }

    fn read(text: &[u8]) -> Result<Self> {
        let value = json::parse(text)?;
        Ok(ImageRecord {
            id: value.string("id"),
            digest: value.string("digest"),
            names: value.strings("names"),
            layer: value.string("layer"),
            mapped_layers: value.strings("mapped-layers"),
            metadata: value.string("metadata"),
            big_data_names: value.strings("big-data-names"),
            big_data_sizes: value.int_map("big-data-sizes")?,
            big_data_digests: value.string_map("big-data-digests")?,
            created: value.string("created"),
            loaded: value.string("loaded"),
            size: value.uint64("size")?,
        })
    }

    /// Writes the record as the reference does.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let text = json::to_text(|w| {
            w.string("id", self.id.as_deref());
            w.string("digest", self.digest.as_deref());
            w.strings("names", &self.names);
            w.string("layer", self.layer.as_deref());
            w.strings("mapped-layers", &self.mapped_layers);
            w.string("metadata", self.metadata.as_deref());
            w.strings("big-data-names", &self.big_data_names);
            w.int_map("big-data-sizes", self.big_data_sizes.as_deref());
            w.string_map("big-data-digests", self.big_data_digests.as_deref());
            w.string("created", self.created.as_deref());
            w.string("loaded", self.loaded.as_deref());
            w.unsigned("size", self.size);
        });
        super::within_limit(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by a real iSulad daemon.
    const RECORDS: [&str; 3] = [
        include_str!("../../tests/golden/records/image-loaded.json"),
        include_str!("../../tests/golden/records/image-imported.json"),
        include_str!("../../tests/golden/records/image-two-tags.json"),
    ];

    #[test]
    fn records_of_the_reference_are_written_byte_for_byte() {
        for text in RECORDS {
            let record = ImageRecord::parse(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(record.to_json().unwrap()).unwrap(), text);
            assert!(record.id.is_some() && record.layer.is_some() && record.size > 0);
        }
    }

    #[test]
    fn all_members_survive_in_the_order_of_the_schema() {
        let text = r#"{
    "id": "i",
    "digest": "d",
    "names": [
        "a:1"
    ],
    "layer": "l",
    "mapped-layers": [
        "m"
    ],
    "metadata": "",
    "big-data-names": [
        "manifest"
    ],
    "big-data-sizes": {
        "manifest": 19
    },
    "big-data-digests": {
        "manifest": "sha256:x"
    },
    "created": "c",
    "loaded": "o",
    "size": 305
}
"#;
        let record = ImageRecord::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record.to_json().unwrap()).unwrap(), text);
    }

    #[test]
    fn historic_and_odd_records_are_read_as_the_reference_does() {
        let old =
            ImageRecord::parse(br#"{"id":"x","Loaded":"2020-06-12T02:50:49Z","names":["a"],"unknown":1}"#);
        let old = old.unwrap();
        assert_eq!(old.loaded, None, "the key is unknown, and lost at the next write");
        assert_eq!(old.id.as_deref(), Some("x"));
        for empty in ["{}", "[]", "null", "\"x\"", r#"{"id":5,"names":"a","size":"7"}"#] {
            assert_eq!(ImageRecord::parse(empty.as_bytes()).unwrap(), ImageRecord::default(), "{empty}");
        }
        for bad in ["", "{", r#"{"size":1.5}"#, r#"{"big-data-sizes":{"a":"1"}}"#] {
            assert_eq!(ImageRecord::parse(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }
}
