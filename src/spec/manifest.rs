// SPDX-License-Identifier: MulanPSL-2.0
//! Image manifests and indexes: OCI, Docker schema 2, and telling them from the rest.

use super::descriptor::Descriptor;
use crate::error::{During, Error, ErrorKind, Result};
use crate::json::{self, Map, Value};

/// An image manifest: OCI, or Docker schema 2, which has the same members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// 2 in all manifests of this form; as written.
    pub schema_version: i32,
    /// What the document says it is.
    pub media_type: Option<String>,
    /// The image's config.
    pub config: Descriptor,
    /// Its layers, base first.
    pub layers: Vec<Descriptor>,
    /// Free text about the image.
    pub annotations: Option<Map<String>>,
}

/// An index (OCI) or manifest list (Docker): manifests for several platforms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// As written.
    pub schema_version: i32,
    /// What the document says it is.
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// Free text about the index.
    pub annotations: Option<Map<String>>,
}

/// What a stored manifest is, by the reference's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Docker schema 2 or OCI.
    Image,
    /// Any other valid JSON, with its `schemaVersion` (0: none).
    Other(i32),
}

impl Manifest {
    /// Reads an OCI manifest: `config` and at least one layer are required.
    pub fn parse(text: &[u8]) -> Result<Self> {
        json::parse(text).and_then(|value| Self::from_value(&value)).during(|| "read image manifest")
    }

    /// The same from a parsed document.
    pub fn from_value(value: &Value) -> Result<Self> {
        let manifest = Manifest {
            schema_version: value.int32("schemaVersion")?,
            media_type: value.string("mediaType"),
            config: Descriptor::from_value(value.required_object("config")?)
                .during(|| "read config descriptor")?,
            layers: descriptors(value, "layers")?,
            annotations: value.string_map("annotations")?,
        };
        if manifest.layers.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "image manifest without layers"));
        }
        Ok(manifest)
    }
}

impl Index {
    /// Reads an index: at least one manifest is required.
    pub fn parse(text: &[u8]) -> Result<Self> {
        json::parse(text).and_then(|value| Self::from_value(&value)).during(|| "read image index")
    }

    /// The same from a parsed document.
    pub fn from_value(value: &Value) -> Result<Self> {
        let index = Index {
            schema_version: value.int32("schemaVersion")?,
            media_type: value.string("mediaType"),
            manifests: descriptors(value, "manifests")?,
            annotations: value.string_map("annotations")?,
        };
        if index.manifests.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "image index without manifests"));
        }
        Ok(index)
    }
}

impl Kind {
    /// What this document is: schema 2 needs `mediaType` and `config`, OCI needs `config` and layers.
    pub fn of(value: &Value) -> Self {
        if is_schema2(value) || Manifest::from_value(value).is_ok() {
            return Kind::Image;
        }
        Kind::Other(value.int32("schemaVersion").unwrap_or(0))
    }
}

/// Layers may be missing in a Docker manifest, but not half.
fn is_schema2(value: &Value) -> bool {
    value.int32("schemaVersion").is_ok()
        && value.str("mediaType").is_some()
        && value.object("config").is_some_and(|config| Descriptor::from_value(config).is_ok())
        && descriptors(value, "layers").is_ok()
}

fn descriptors(value: &Value, key: &str) -> Result<Vec<Descriptor>> {
    let read =
        |(index, value)| Descriptor::from_value(value).during(|| format!("read descriptor {index} of {key}"));
    value.array(key).iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#""config":{"mediaType":"c","size":1,"digest":"sha256:c"}"#;
    const LAYER: &str = r#""layers":[{"mediaType":"l","size":2,"digest":"sha256:l"}]"#;

    fn kind(text: &str) -> Kind {
        Kind::of(&json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_manifest_needs_a_config_and_layers() {
        let text =
            format!(r#"{{"schemaVersion":2,"mediaType":"m",{CONFIG},{LAYER},"annotations":{{"a":"b"}}}}"#);
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.schema_version, 2);
        assert_eq!(manifest.media_type.as_deref(), Some("m"));
        assert_eq!(manifest.config.digest, "sha256:c");
        assert_eq!(manifest.layers.len(), 1);
        assert_eq!(manifest.layers[0].size, 2);
        assert_eq!(manifest.annotations.unwrap().len(), 1);
        for bad in [
            format!("{{{LAYER}}}"),
            format!("{{{CONFIG}}}"),
            format!("{{{CONFIG},\"layers\":[]}}"),
            format!("{{{CONFIG},\"layers\":[{{}}]}}"),
        ] {
            assert_eq!(Manifest::parse(bad.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData, "{bad}");
        }
    }

    #[test]
    fn an_index_needs_manifests() {
        let text = r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","size":3,"digest":"sha256:m",
            "platform":{"architecture":"amd64","os":"linux"}}]}"#;
        let index = Index::parse(text.as_bytes()).unwrap();
        assert_eq!(index.manifests[0].platform.as_ref().unwrap().os, "linux");
        for bad in ["{}", r#"{"manifests":[]}"#, r#"{"manifests":[{}]}"#] {
            assert!(Index::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn manifests_are_told_apart_as_by_the_reference() {
        assert_eq!(kind(&format!("{{{CONFIG},{LAYER}}}")), Kind::Image);
        assert_eq!(
            kind(&format!(r#"{{"mediaType":"m",{CONFIG}}}"#)),
            Kind::Image,
            "schema 2 needs no layers"
        );
        assert_eq!(kind(&format!(r#"{{"mediaType":"m",{CONFIG},"layers":[{{}}]}}"#)), Kind::Other(0));
        assert_eq!(kind(&format!("{{{CONFIG}}}")), Kind::Other(0), "OCI needs layers");
        assert_eq!(kind(r#"{"schemaVersion":1}"#), Kind::Other(1));
        assert_eq!(kind(r#"{"schemaVersion":2,"manifests":[]}"#), Kind::Other(2));
        for other in ["[]", "{}", "null", "5", r#""x""#] {
            assert_eq!(kind(other), Kind::Other(0), "{other}");
        }
    }
}
