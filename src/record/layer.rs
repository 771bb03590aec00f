// SPDX-License-Identifier: MulanPSL-2.0
//! `layer.json`.

use crate::error::Result;

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
    /// Reads the text of a record.
    pub fn parse(text: &[u8]) -> Result<Self> {
        todo!()
    }

    /// Writes the record as the reference does.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        todo!()
    }
}
