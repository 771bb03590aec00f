// SPDX-License-Identifier: MulanPSL-2.0
//! OCI image layout: `oci-layout`, `index.json`, indexes, manifests, platforms.
//!
//! Source: OCI image specification 1.1, "Image Layout", "Image Index", "Image Manifest". Docker's schema 2 types are
//! taken for their OCI counterparts.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// Name of the file that marks a layout.
pub const LAYOUT: &str = "oci-layout";
/// Name of the entry point of a layout.
pub const INDEX: &str = "index.json";

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYER_PREFIXES: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
/// containerd and Docker keep the whole name here and only the tag in [`REF_NAME`].
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// On manifests that hold attestations of another one, not an image.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Which kind of document a descriptor leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of manifests or further indexes.
    Index,
    /// A manifest.
    Manifest,
    /// Something that is not an image.
    Other,
}

/// A descriptor: a typed, checked pointer to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type, may be empty.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Free-form facts.
    pub annotations: BTreeMap<String, String>,
    /// For which platform, if it says so.
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// What it leads to.
    pub fn kind(&self) -> Kind {
        let media_type = self.media_type.as_str();
        if INDEX_TYPES.contains(&media_type) {
            Kind::Index
        } else if self.annotations.contains_key(REFERENCE_TYPE) {
            Kind::Other
        } else if MANIFEST_TYPES.contains(&media_type) {
            Kind::Manifest
        } else {
            Kind::Other
        }
    }

    /// The image's name by its annotations, if it has one.
    pub fn name(&self) -> Option<&str> {
        let named = |key| self.annotations.get(key).map(String::as_str).filter(|name| !name.is_empty());
        named(CONTAINERD_NAME).or_else(|| named(REF_NAME))
    }

    /// Path of the blob in a layout.
    pub fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }
}

/// For which system an image is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor, such as `amd64`.
    pub architecture: String,
    /// Variant of the processor, such as `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this library was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Parses `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some(*variant)),
            _ => ("", "", None),
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err(Error::invalid(format!(
                "parse platform {text:?}: it is not os/architecture or os/architecture/variant"
            )));
        }
        Ok(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }

    /// How well an image for `self` runs on `wanted`: `None` not at all, greater is better.
    fn fitness(&self, wanted: &Platform) -> Option<(u8, &str)> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        match (self.variant.as_deref(), wanted.variant.as_deref()) {
            (mine, wanted) if mine == wanted => Some((2, "")),
            // arm64 without a variant is v8.
            (None, Some("v8")) | (Some("v8"), None) => Some((2, "")),
            (None, _) | (_, None) => Some((1, "")),
            // An older variant of the same processor.
            (Some(mine), Some(wanted)) if mine < wanted => Some((0, mine)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image's config.
    pub config: Descriptor,
    /// Its layers, base first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

impl RawDescriptor {
    fn check(self) -> Result<Descriptor> {
        let digest = Digest::parse(&self.digest).map_err(|error| error.with_kind(ErrorKind::InvalidData))?;
        Ok(Descriptor {
            media_type: self.media_type,
            digest,
            size: self.size,
            annotations: self.annotations.unwrap_or_default(),
            platform: self.platform,
        })
    }
}

/// What an import needs of an image config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFacts {
    /// When the image was made, as written; often absent.
    pub created: Option<String>,
    /// Diff IDs of its layers, base first.
    pub diff_ids: Vec<Digest>,
    /// For which platform, if it says so.
    pub platform: Option<Platform>,
}

/// Reads the few members of an image config that an import needs.
pub fn parse_config(text: &[u8]) -> Result<ConfigFacts> {
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Raw {
        created: Option<String>,
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        variant: Option<String>,
        rootfs: RootFs,
    }
    let raw: Raw = serde_json::from_slice(text).map_err(|error| invalid("image config", error))?;
    let digest = |text: &String| Digest::parse(text).map_err(|error| error.with_kind(ErrorKind::InvalidData));
    let variant = raw.variant.filter(|variant| !variant.is_empty());
    let known = !raw.os.is_empty() && !raw.architecture.is_empty();
    Ok(ConfigFacts {
        created: raw.created,
        diff_ids: raw.rootfs.diff_ids.iter().map(digest).collect::<Result<_>>()?,
        platform: known.then_some(Platform { os: raw.os, architecture: raw.architecture, variant }),
    })
}

fn invalid(what: &str, error: serde_json::Error) -> Error {
    Error::with_source(ErrorKind::InvalidData, format!("parse {what}"), error)
}

/// Checks the text of `oci-layout`: version 1.
pub fn check_layout(text: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Layout {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let layout: Layout = serde_json::from_slice(text).map_err(|error| invalid(LAYOUT, error))?;
    if layout.version == "1" || layout.version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("OCI layout version {:?} is not known", layout.version)))
}

/// Reads an index.
pub fn parse_index(text: &[u8]) -> Result<Vec<Descriptor>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<RawDescriptor>,
    }
    let index: Index = serde_json::from_slice(text).map_err(|error| invalid("image index", error))?;
    index.manifests.into_iter().map(RawDescriptor::check).collect()
}

/// Reads a manifest and checks that it is one of an image.
pub fn parse_manifest(text: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Raw {
        config: RawDescriptor,
        layers: Vec<RawDescriptor>,
    }
    let raw: Raw = serde_json::from_slice(text).map_err(|error| invalid("image manifest", error))?;
    let manifest = Manifest {
        config: raw.config.check()?,
        layers: raw.layers.into_iter().map(RawDescriptor::check).collect::<Result<_>>()?,
    };
    let unknown = |what: &str, name: &str| {
        Error::new(ErrorKind::Unsupported, format!("{what} of type {name:?} is not known"))
    };
    if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
        return Err(unknown("image config", &manifest.config.media_type));
    }
    for layer in &manifest.layers {
        let suffix = LAYER_PREFIXES.iter().find_map(|prefix| layer.media_type.strip_prefix(prefix));
        if !matches!(suffix, Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd")) {
            return Err(unknown("layer", &layer.media_type));
        }
    }
    Ok(manifest)
}

/// The descriptors of an index that are wanted on a platform: of those that belong together (one name) and name
/// platforms the one that fits best, and all that name none. Attestations and other artifacts are left out.
pub fn choose<'a>(index: &'a [Descriptor], wanted: &Platform) -> Vec<&'a Descriptor> {
    let mut best: BTreeMap<Option<&str>, ((u8, &str), usize)> = BTreeMap::new();
    let mut chosen = Vec::new();
    for (at, descriptor) in index.iter().enumerate() {
        if descriptor.kind() == Kind::Other {
            continue;
        }
        let Some(platform) = &descriptor.platform else {
            chosen.push(at);
            continue;
        };
        if let Some(fitness) = platform.fitness(wanted) {
            let entry = best.entry(descriptor.name()).or_insert((fitness, at));
            if fitness > entry.0 {
                *entry = (fitness, at);
            }
        }
    }
    chosen.extend(best.values().map(|(_, at)| *at));
    chosen.sort_unstable();
    chosen.iter().filter_map(|at| index.get(*at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, platform: Option<&str>, annotations: &[(&str, &str)]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(format!("{media_type}{platform:?}{annotations:?}").as_bytes()),
            size: 1,
            annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            platform: platform.map(|text| Platform::parse(text).unwrap()),
        }
    }

    const IMAGE: &str = MANIFEST_TYPES[0];

    #[test]
    fn layout_versions() {
        assert!(check_layout(br#"{"imageLayoutVersion":"1.0.0"}"#).is_ok());
        assert_eq!(
            check_layout(br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(check_layout(b"{}").unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_manifest_is_read_and_what_is_not_an_image_refused() {
        let hex = "11".repeat(32);
        let text = |config: &str, layer: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"sha256:{hex}","size":7}},
                "layers":[{{"mediaType":"{layer}","digest":"sha256:{hex}","size":9}}]}}"#
            )
        };
        let oci = "application/vnd.oci.image.layer.v1.tar";
        for layer in [
            oci,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ] {
            let manifest = parse_manifest(text(CONFIG_TYPES[0], layer).as_bytes()).unwrap();
            assert_eq!((manifest.config.size, manifest.layers[0].size), (7, 9));
            assert_eq!(manifest.layers[0].path(), format!("blobs/sha256/{hex}"));
        }
        for (config, layer) in [
            ("application/vnd.oci.empty.v1+json", oci),
            (CONFIG_TYPES[0], "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            (CONFIG_TYPES[0], "text/plain"),
        ] {
            let error = parse_manifest(text(config, layer).as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{config} {layer}");
        }
        let other = text(CONFIG_TYPES[0], oci).replace("sha256:1", "sha512:1");
        for bad in ["", "{}", "[]", r#"{"config":{},"layers":[]}"#, &other] {
            assert_eq!(parse_manifest(bad.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData, "{bad}");
        }
    }

    #[test]
    fn the_full_name_wins_over_the_bare_tag() {
        assert_eq!(descriptor(IMAGE, None, &[]).name(), None);
        assert_eq!(descriptor(IMAGE, None, &[(REF_NAME, "v1")]).name(), Some("v1"));
        assert_eq!(
            descriptor(IMAGE, None, &[(REF_NAME, "v1"), (CONTAINERD_NAME, "a/b:v1")]).name(),
            Some("a/b:v1")
        );
        assert_eq!(descriptor(IMAGE, None, &[(REF_NAME, "v1"), (CONTAINERD_NAME, "")]).name(), Some("v1"));
    }

    #[test]
    fn the_best_platform_of_each_name_is_chosen() {
        let index = [
            descriptor(IMAGE, Some("linux/amd64"), &[]),
            descriptor(IMAGE, Some("linux/arm64"), &[]),
            descriptor(IMAGE, Some("linux/arm/v6"), &[]),
            descriptor(IMAGE, Some("linux/arm/v7"), &[]),
            descriptor(IMAGE, Some("unknown/unknown"), &[(REFERENCE_TYPE, "attestation-manifest")]),
            descriptor(IMAGE, None, &[(REF_NAME, "a")]),
            descriptor(IMAGE, None, &[(REF_NAME, "b")]),
            descriptor("application/vnd.example", None, &[]),
            descriptor(IMAGE, Some("linux/amd64"), &[(REF_NAME, "c")]),
            descriptor(IMAGE, Some("windows/amd64"), &[(REF_NAME, "c")]),
        ];
        let chosen = |platform: &str| -> Vec<usize> {
            choose(&index, &Platform::parse(platform).unwrap())
                .into_iter()
                .map(|one| index.iter().position(|d| std::ptr::eq(d, one)).unwrap())
                .collect()
        };
        assert_eq!(chosen("linux/amd64"), [0, 5, 6, 8]);
        assert_eq!(chosen("linux/arm64/v8"), [1, 5, 6]);
        assert_eq!(chosen("linux/arm/v7"), [3, 5, 6]);
        assert_eq!(chosen("linux/arm/v8"), [3, 5, 6]);
        assert_eq!(chosen("linux/arm/v5"), [5, 6]);
        assert_eq!(chosen("linux/s390x"), [5, 6]);
    }

    #[test]
    fn platforms_are_written_as_they_are_read() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/", "a/b/c/d"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }
}
