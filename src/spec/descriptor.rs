// SPDX-License-Identifier: MulanPSL-2.0
//! Content descriptors and media types.
//!
//! Source: OCI image specification, "Content descriptors"; Docker image manifest version 2, schema 2.

use crate::error::Result;
use crate::json::{Map, Value};

/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a plain OCI layer; `+gzip` or `+zstd` is added to it.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a Docker manifest of schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Media type of a plain layer in a Docker manifest.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Media type of a gzipped layer in a Docker manifest.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What points to a blob. The digest is as written: it may be of any algorithm, or no digest at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its size in bytes, as claimed.
    pub size: i64,
    /// Its digest, as claimed.
    pub digest: String,
    /// Where else it may be found.
    pub urls: Vec<String>,
    /// Free text about it.
    pub annotations: Option<Map<String>>,
    /// What it runs on, in an index.
    pub platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// Processor, in Go's words.
    pub architecture: String,
    /// Operating system, in Go's words.
    pub os: String,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system.
    pub os_features: Vec<String>,
    /// Variant of the processor.
    pub variant: Option<String>,
}

impl Descriptor {
    /// Reads a descriptor; media type and digest are required.
    pub fn from_value(value: &Value) -> Result<Self> {
        Ok(Descriptor {
            media_type: value.required_string("mediaType")?,
            size: value.int64("size")?,
            digest: value.required_string("digest")?,
            urls: value.strings("urls"),
            annotations: value.string_map("annotations")?,
            platform: value.object("platform").map(Platform::from_value).transpose()?,
        })
    }
}

impl Platform {
    fn from_value(value: &Value) -> Result<Self> {
        Ok(Platform {
            architecture: value.required_string("architecture")?,
            os: value.required_string("os")?,
            os_version: value.string("os.version"),
            os_features: value.strings("os.features"),
            variant: value.string("variant"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn descriptors_need_a_media_type_and_a_digest() {
        let read = |text: &str| Descriptor::from_value(&json::parse(text.as_bytes()).unwrap());
        let full = read(
            r#"{"mediaType":"m","size":5,"digest":"sha256:x","urls":["u"],"annotations":{"k":"v"},
                "platform":{"architecture":"amd64","os":"linux","os.version":"1","os.features":["f"],"variant":"v8"}}"#,
        )
        .unwrap();
        assert_eq!((full.media_type.as_str(), full.size, full.digest.as_str()), ("m", 5, "sha256:x"));
        assert_eq!(full.urls, ["u"]);
        assert_eq!(full.annotations.unwrap(), [("k".to_owned(), "v".to_owned())]);
        let platform = full.platform.unwrap();
        assert_eq!((platform.architecture.as_str(), platform.os.as_str()), ("amd64", "linux"));
        assert_eq!(platform.os_version.as_deref(), Some("1"));
        assert_eq!(platform.os_features, ["f"]);
        assert_eq!(platform.variant.as_deref(), Some("v8"));

        let least = read(r#"{"mediaType":"m","digest":"d","size":"5"}"#).unwrap();
        assert_eq!(least.size, 0);
        for bad in [
            "{}",
            "[]",
            r#"{"mediaType":"m"}"#,
            r#"{"digest":"d"}"#,
            r#"{"mediaType":5,"digest":"d"}"#,
            r#"{"mediaType":"m","digest":"d","size":1.5}"#,
            r#"{"mediaType":"m","digest":"d","annotations":{"a":1}}"#,
            r#"{"mediaType":"m","digest":"d","platform":{}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
