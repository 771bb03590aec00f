// SPDX-License-Identifier: MulanPSL-2.0
//! OCI image layout: where its blobs are, and which of its images are wanted.
//!
//! Source: OCI image specification 1.1, "Image Layout", "Image Index", "Image Manifest". Docker's schema 2 types are
//! taken for their OCI counterparts.

use std::collections::BTreeMap;

use super::descriptor::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, Descriptor, OCI_CONFIG, OCI_INDEX,
    OCI_LAYER, OCI_MANIFEST,
};
use super::manifest::Manifest;
use super::platform::Platform;
use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::json;

/// Name of the file that marks a layout.
pub const LAYOUT: &str = "oci-layout";
/// Name of the entry point of a layout.
pub const INDEX: &str = "index.json";

const LAYER_TYPES: [&str; 4] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    DOCKER_LAYER,
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

impl Kind {
    /// What a descriptor leads to.
    pub fn of(descriptor: &Descriptor) -> Self {
        match descriptor.media_type.as_str() {
            OCI_INDEX | DOCKER_MANIFEST_LIST => Kind::Index,
            OCI_MANIFEST | DOCKER_MANIFEST if annotation(descriptor, REFERENCE_TYPE).is_none() => {
                Kind::Manifest
            }
            _ => Kind::Other,
        }
    }
}

/// The image's name by the annotations of its descriptor, if it has one.
pub fn name(descriptor: &Descriptor) -> Option<&str> {
    annotation(descriptor, CONTAINERD_NAME).or_else(|| annotation(descriptor, REF_NAME))
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    let mut annotations = descriptor.annotations.iter().flatten();
    annotations.find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// A blob of a layout, its digest and size checked for form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Blob {
    /// What a descriptor points to: only SHA-256 is known.
    pub fn of(descriptor: &Descriptor) -> Result<Self> {
        let size = u64::try_from(descriptor.size).map_err(|_| {
            let message = format!("blob {}: a size of {} bytes", descriptor.digest, descriptor.size);
            Error::new(ErrorKind::InvalidData, message)
        })?;
        Ok(Blob { digest: digest(&descriptor.digest)?, size })
    }

    /// Its path in a layout.
    pub fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }
}

/// A digest in a document of others.
pub fn digest(text: &str) -> Result<Digest> {
    Digest::parse(text).map_err(|error| error.with_kind(ErrorKind::InvalidData))
}

/// Checks the text of `oci-layout`: version 1.
pub fn check_layout(text: &[u8]) -> Result<()> {
    let version = json::parse(text)
        .and_then(|layout| layout.required_string("imageLayoutVersion"))
        .during(|| format!("read {LAYOUT}"))?;
    if version == "1" || version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("OCI layout version {version:?} is not known")))
}

/// Checks that a manifest is that of an image, with layers that are tar archives.
pub fn check_types(manifest: &Manifest) -> Result<()> {
    let config = manifest.config.media_type.as_str();
    if !matches!(config, OCI_CONFIG | DOCKER_CONFIG) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("image config of type {config:?} is not known"),
        ));
    }
    for layer in &manifest.layers {
        let name = layer.media_type.as_str();
        let suffix = LAYER_TYPES.iter().find_map(|prefix| name.strip_prefix(prefix));
        if !matches!(suffix, Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd")) {
            return Err(Error::new(ErrorKind::Unsupported, format!("layer of type {name:?} is not known")));
        }
    }
    Ok(())
}

/// The descriptors of an index that are wanted on a platform: of those that belong together (one name) and name
/// platforms the one that fits best, and all that name none. Attestations and other artifacts are left out.
pub fn choose<'a>(index: &'a [Descriptor], wanted: &Platform) -> Vec<&'a Descriptor> {
    let mut best: BTreeMap<Option<&str>, ((u8, &str), usize)> = BTreeMap::new();
    let mut chosen = Vec::new();
    for (at, descriptor) in index.iter().enumerate() {
        if Kind::of(descriptor) == Kind::Other {
            continue;
        }
        let Some(platform) = &descriptor.platform else {
            chosen.push(at);
            continue;
        };
        if let Some(fitness) = platform.fitness(wanted) {
            let entry = best.entry(name(descriptor)).or_insert((fitness, at));
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
            annotations: Some(annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            platform: platform.map(|text| Platform::parse(text).unwrap()),
            ..Descriptor::default()
        }
    }

    #[test]
    fn layout_versions() {
        assert!(check_layout(br#"{"imageLayoutVersion":"1.0.0"}"#).is_ok());
        let later = check_layout(br#"{"imageLayoutVersion":"2.0.0"}"#);
        assert_eq!(later.unwrap_err().kind(), ErrorKind::Unsupported);
        for bad in ["", "{}", "[]"] {
            assert_eq!(check_layout(bad.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData, "{bad}");
        }
    }

    #[test]
    fn only_images_of_tar_layers_are_taken() {
        let manifest = |config: &str, layer: &str| Manifest {
            config: descriptor(config, None, &[]),
            layers: vec![descriptor(layer, None, &[])],
            ..Manifest::default()
        };
        for layer in [
            OCI_LAYER,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ] {
            assert!(check_types(&manifest(OCI_CONFIG, layer)).is_ok(), "{layer}");
        }
        for (config, layer) in [
            ("application/vnd.oci.empty.v1+json", OCI_LAYER),
            (OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            (DOCKER_CONFIG, "text/plain"),
        ] {
            let error = check_types(&manifest(config, layer)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{config} {layer}");
        }
    }

    #[test]
    fn a_blob_needs_a_sha256_digest_and_a_size() {
        let of = |digest: &str, size| {
            Blob::of(&Descriptor { digest: digest.to_owned(), size, ..Descriptor::default() })
        };
        let hex = "11".repeat(32);
        let blob = of(&format!("sha256:{hex}"), 7).unwrap();
        assert_eq!((blob.size, blob.path()), (7, format!("blobs/sha256/{hex}")));
        for (digest, size) in [("sha256:../../etc/passwd", 1), ("sha512:11", 1), ("", 1)] {
            assert_eq!(of(digest, size).unwrap_err().kind(), ErrorKind::InvalidData, "{digest}");
        }
        assert_eq!(of(&format!("sha256:{hex}"), -1).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn the_full_name_wins_over_the_bare_tag() {
        let named = |annotations: &[(&str, &str)]| {
            name(&descriptor(OCI_MANIFEST, None, annotations)).map(str::to_owned)
        };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[(REF_NAME, "v1")]).as_deref(), Some("v1"));
        assert_eq!(named(&[(REF_NAME, "v1"), (CONTAINERD_NAME, "a/b:v1")]).as_deref(), Some("a/b:v1"));
        assert_eq!(named(&[(REF_NAME, "v1"), (CONTAINERD_NAME, "")]).as_deref(), Some("v1"));
    }

    #[test]
    fn the_best_platform_of_each_name_is_chosen() {
        let index = [
            descriptor(OCI_MANIFEST, Some("linux/amd64"), &[]),
            descriptor(OCI_MANIFEST, Some("linux/arm64"), &[]),
            descriptor(OCI_MANIFEST, Some("linux/arm/v6"), &[]),
            descriptor(OCI_MANIFEST, Some("linux/arm/v7"), &[]),
            descriptor(OCI_MANIFEST, Some("unknown/unknown"), &[(REFERENCE_TYPE, "attestation-manifest")]),
            descriptor(OCI_MANIFEST, None, &[(REF_NAME, "a")]),
            descriptor(OCI_INDEX, None, &[(REF_NAME, "b")]),
            descriptor("application/vnd.example", None, &[]),
            descriptor(DOCKER_MANIFEST, Some("linux/amd64"), &[(REF_NAME, "c")]),
            descriptor(OCI_MANIFEST, Some("windows/amd64"), &[(REF_NAME, "c")]),
        ];
        let chosen = |platform: &str| -> Vec<usize> {
            choose(&index, &Platform::parse(platform).unwrap())
                .into_iter()
                .map(|one| index.iter().position(|other| std::ptr::eq(other, one)).unwrap())
                .collect()
        };
        assert_eq!(chosen("linux/amd64"), [0, 5, 6, 8]);
        assert_eq!(chosen("linux/arm64/v8"), [1, 5, 6]);
        assert_eq!(chosen("linux/arm/v7"), [3, 5, 6]);
        assert_eq!(chosen("linux/arm/v8"), [3, 5, 6], "the newest of the older variants");
        assert_eq!(chosen("linux/arm/v5"), [5, 6]);
        assert_eq!(chosen("linux/s390x"), [5, 6]);
    }
}
