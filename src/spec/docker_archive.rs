// SPDX-License-Identifier: MulanPSL-2.0
//! The `manifest.json` of a docker archive (`docker save`), and the manifest that iSulad's load makes of it.
//!
//! A docker archive has no manifest of the image format. iSulad makes one up when it loads such an archive and keeps
//! it as big data `manifest`; `tests/golden` holds two that it wrote.

use serde::{Deserialize, Serialize};

use super::descriptor::{DOCKER_CONFIG, DOCKER_LAYER_GZIP};
use super::oci_layout::Blob;
use crate::error::{Error, ErrorKind, Result};

/// Name of the list of images in the archive.
pub const MANIFEST: &str = "manifest.json";

/// One image of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ArchiveImage {
    /// Path of its config in the archive.
    #[serde(rename = "Config")]
    pub config: String,
    /// Its names; often none.
    #[serde(rename = "RepoTags", default, deserialize_with = "null_is_empty")]
    pub repo_tags: Vec<String>,
    /// Paths of its layers in the archive, base first.
    #[serde(rename = "Layers", default, deserialize_with = "null_is_empty")]
    pub layers: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

/// Reads `manifest.json`: at least one image.
pub fn parse_manifest(text: &[u8]) -> Result<Vec<ArchiveImage>> {
    let images: Vec<ArchiveImage> = serde_json::from_slice(text)
        .map_err(|error| Error::with_source(ErrorKind::InvalidData, format!("parse {MANIFEST}"), error))?;
    if images.is_empty() {
        return Err(Error::new(ErrorKind::InvalidData, format!("{MANIFEST} lists no image")));
    }
    Ok(images)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeUp {
    schema_version: u32,
    config: MadeUpBlob,
    layers: Vec<MadeUpBlob>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeUpBlob {
    media_type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    digest: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(size: &u64) -> bool {
    *size == 0
}

/// The manifest that iSulad's load stores for an image of a docker archive, byte for byte: four spaces, a newline at
/// the end. Of a layer it names the diff ID, and always the type of a compressed layer; a size of 0 is left out.
pub fn made_up_manifest(config: Blob, layers: &[Blob]) -> Result<Vec<u8>> {
    let entry =
        |media_type, blob: &Blob| MadeUpBlob { media_type, size: blob.size, digest: blob.digest.to_string() };
    let manifest = MadeUp {
        schema_version: 2,
        config: entry(DOCKER_CONFIG, &config),
        layers: layers.iter().map(|layer| entry(DOCKER_LAYER_GZIP, layer)).collect(),
    };
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    manifest
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, format))
        .map_err(|error| Error::with_source(ErrorKind::InvalidData, "write the image's manifest", error))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn digest(hex: &str) -> Digest {
        Digest::from_hex(hex).unwrap()
    }

    #[test]
    fn the_list_of_images_is_read_with_and_without_names() {
        let text = br#"[{"Config":"a.json","RepoTags":["x:1","y:2"],"Layers":["l/layer.tar"],"Other":1},
            {"Config":"b.json","RepoTags":null,"Layers":null},{"Config":"c.json"}]"#;
        let images = parse_manifest(text).unwrap();
        assert_eq!(images.len(), 3);
        assert_eq!(images[0].repo_tags, ["x:1", "y:2"]);
        assert_eq!(images[0].layers, ["l/layer.tar"]);
        assert!(images[1].repo_tags.is_empty() && images[1].layers.is_empty());
        assert!(images[2].repo_tags.is_empty() && images[2].layers.is_empty());
    }

    #[test]
    fn what_is_not_a_list_of_images_is_refused() {
        for bad in
            ["", "[]", "{}", "[{}]", "[{\"Config\":1}]", "[{\"Config\":\"a\",\"Layers\":\"x\"}]", "[1]"]
        {
            assert_eq!(parse_manifest(bad.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData, "{bad}");
        }
    }

    /// The text is the one that a real iSulad daemon stored for `tests/golden/images/opq.tar.gz`.
    #[test]
    fn the_made_up_manifest_is_the_one_that_isulad_writes() {
        let config = Blob {
            digest: digest("bc963e45ffea5b72f31132cbaa00e912eb1fd7bfd4a5822cc1004791e791c6cb"),
            size: 824,
        };
        let layers = [
            Blob {
                digest: digest("e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3"),
                size: 2_007_552,
            },
            Blob {
                digest: digest("33b7c9e99d55a2e67fbd0ecdf44f19975cbb1c570347feb195557df8f9cb9c24"),
                size: 7168,
            },
            Blob {
                digest: digest("5bad5a72b45f57c4f68997b29d7768e48751e2958e060ec947daa307f45a37d4"),
                size: 10_240,
            },
        ];
        let text = made_up_manifest(config, &layers).unwrap();
        assert_eq!(text.len(), 923);
        assert_eq!(
            Digest::of(&text).to_string(),
            "sha256:479f734dc295f9e19ecb1305a7de96a33997bdb3c103731f0ac7bf14f0c63052"
        );
    }

    #[test]
    fn an_unknown_size_is_left_out() {
        let config = Blob {
            digest: digest("11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142"),
            size: 658,
        };
        let layers = [
            Blob {
                digest: digest("e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3"),
                size: 0,
            },
            Blob {
                digest: digest("33b7c9e99d55a2e67fbd0ecdf44f19975cbb1c570347feb195557df8f9cb9c24"),
                size: 0,
            },
        ];
        let text = made_up_manifest(config, &layers).unwrap();
        assert_eq!(
            Digest::of(&text).to_string(),
            "sha256:2de6b901ca7381878de203daa3f952b99af7f38268daeb3366ad73b516b6b206"
        );
    }
}
