// SPDX-License-Identifier: MulanPSL-2.0
//! `images.json`.

use crate::error::Result;

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
    pub big_data_sizes: Option<Vec<(String, i64)>>,
    /// Digests of big data; `None` when the member is absent.
    pub big_data_digests: Option<Vec<(String, String)>>,
    /// When it was made.
    pub created: Option<String>,
    /// When it was loaded.
    pub loaded: Option<String>,
    /// Size in bytes, 0 when unknown.
    pub size: u64,
}

impl ImageRecord {
    /// Reads the text of a record.
    pub fn parse(text: &[u8]) -> Result<Self> {
        todo!()
    }

    /// Writes the record as the reference does.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        todo!()
    }
}
