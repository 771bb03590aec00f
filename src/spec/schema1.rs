// SPDX-License-Identifier: MulanPSL-2.0
//! Docker manifests of schema 1, and the config that the reference makes of one.
//!
//! A manifest of schema 1 lists its layers top first; each has a `v1Compatibility` document. The config of the
//! image is the top one's, less what schema 2 has elsewhere, plus diff IDs (which only the layer store knows) and
//! history.

use super::config::History;
use super::docker_config::{DockerConfig, DockerRootFs};
use crate::error::{During, Error, ErrorKind, Result};
use crate::json;

/// Most layers of an image of schema 1.
pub const MAX_LAYERS: usize = 125;

/// A manifest of schema 1. Nothing is required, as in the reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema1 {
    /// Repository.
    pub name: Option<String>,
    /// Tag.
    pub tag: Option<String>,
    /// Processor, in Go's words.
    pub architecture: Option<String>,
    /// Digests of the compressed layers, top first.
    pub blob_sums: Vec<Option<String>>,
    /// `v1Compatibility` documents, top first.
    pub history: Vec<Option<String>>,
    /// 1.
    pub schema_version: i32,
}

/// What is needed of a `v1Compatibility` document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Compatibility {
    /// Who made the layer.
    pub author: Option<String>,
    /// Its id.
    pub id: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// Id of the layer below.
    pub parent: Option<String>,
    /// When it was made.
    pub created: Option<String>,
    /// It changed no file: the layer is empty and not stored.
    pub throwaway: bool,
    /// The command that made it.
    pub cmd: Vec<String>,
}

/// A layer of an image of schema 1, for the search of its diff ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Layer {
    /// Digest of the compressed layer.
    pub blob_sum: Option<String>,
    /// Its document.
    pub document: V1Compatibility,
}

impl Schema1 {
    /// Reads a manifest. Any valid JSON is one.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let value = json::parse(text).during(|| "read manifest of schema 1")?;
        let texts = |list, key| value.array(list).iter().map(|element| element.string(key)).collect();
        Ok(Schema1 {
            name: value.string("name"),
            tag: value.string("tag"),
            architecture: value.string("architecture"),
            blob_sums: texts("fsLayers", "blobSum"),
            history: texts("history", "v1Compatibility"),
            schema_version: value.int32("schemaVersion").during(|| "read manifest of schema 1")?,
        })
    }

    /// The layers, base first. There must be 1 to 125 of them and one document each.
    pub fn layers(&self) -> Result<Vec<V1Layer>> {
        let count = self.blob_sums.len();
        if !(1..=MAX_LAYERS).contains(&count) || count != self.history.len() {
            let message =
                format!("manifest of schema 1 with {count} layers and {} documents", self.history.len());
            return Err(Error::new(ErrorKind::InvalidData, message));
        }
        let read = |(blob_sum, history): (&Option<String>, &Option<String>)| {
            let document = V1Compatibility::parse(history.as_deref().unwrap_or_default().as_bytes())?;
            Ok(V1Layer { blob_sum: blob_sum.clone(), document })
        };
        self.blob_sums.iter().zip(&self.history).rev().map(read).collect()
    }

    /// The config of the image. `diff_ids` has one entry for each of [`layers`](Self::layers), base first; those of
    /// empty layers are not looked at, any other must be there (`NotFound`).
    pub fn to_config(&self, layers: &[V1Layer], diff_ids: &[Option<String>]) -> Result<DockerConfig> {
        let top = self.history.first().and_then(Option::as_deref).unwrap_or_default();
        let mut config = DockerConfig::parse(top.as_bytes()).during(|| "read document of the top layer")?;
        let mut rootfs = DockerRootFs { kind: Some("layers".to_owned()), diff_ids: Vec::new() };
        let diff_ids = diff_ids.iter().chain(std::iter::repeat(&None));
        for (index, (layer, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
            if !layer.document.throwaway {
                let missing = || Error::not_found(format!("no diff ID is known for layer {index}"));
                rootfs.diff_ids.push(diff_id.clone().ok_or_else(missing)?);
            }
        }
        config.id = None;
        config.parent = None;
        config.size = 0;
        config.rootfs = Some(rootfs);
        config.history = layers.iter().map(|layer| layer.document.to_history()).collect();
        Ok(config)
    }
}

impl V1Compatibility {
    /// Reads a document; nothing is required.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let value = json::parse(text).during(|| "read document of schema 1")?;
        Ok(V1Compatibility {
            author: value.string("author"),
            id: value.string("id"),
            comment: value.string("comment"),
            parent: value.string("parent"),
            created: value.string("created"),
            throwaway: value.flag("throwaway"),
            cmd: value.object("container_config").map(|config| config.strings("Cmd")).unwrap_or_default(),
        })
    }

    fn to_history(&self) -> History {
        History {
            created: self.created.clone(),
            author: self.author.clone(),
            created_by: (!self.cmd.is_empty()).then(|| self.cmd.join(" ")),
            comment: self.comment.clone(),
            empty_layer: self.throwaway,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r##"{
        "schemaVersion": 1, "name": "own/app", "tag": "v1", "architecture": "arm64",
        "fsLayers": [{"blobSum": "sha256:empty"}, {"blobSum": "sha256:two"}, {"blobSum": "sha256:one"}],
        "history": [
            {"v1Compatibility": "{\"architecture\":\"arm64\",\"config\":{\"User\":\"\",\"Tty\":false,\"ExposedPorts\":{\"80/tcp\":{},\"81/tcp\":{}},\"Env\":[\"A=b\"],\"ArgsEscaped\":true,\"Volumes\":null,\"OnBuild\":null,\"Labels\":{}},\"container_config\":{\"Cmd\":[\"/bin/sh\",\"-c\",\"#(nop) \",\"CMD [\\\"x\\\"]\"]},\"created\":\"2019-10-11T17:26:17.8Z\",\"docker_version\":\"18\",\"id\":\"top\",\"os\":\"linux\",\"parent\":\"mid\",\"Size\":5,\"throwaway\":true}"},
            {"v1Compatibility": "{\"id\":\"mid\",\"parent\":\"base\",\"created\":\"2\",\"author\":\"me\",\"comment\":\"\",\"container_config\":{\"Cmd\":[\"a\\u0026\\tb\"]}}"},
            {"v1Compatibility": "{\"id\":\"base\"}"}
        ]}"##;

    const CONFIG: &str = r##"{
    "created": "2019-10-11T17:26:17.8Z",
    "container_config": {
        "Cmd": [
            "/bin/sh",
            "-c",
            "#(nop) ",
            "CMD [\"x\"]"
        ]
    },
    "docker_version": "18",
    "config": {
        "User": "",
        "ExposedPorts": {
            "80/tcp":{},
            "81/tcp":{}
        },
        "Env": [
            "A=b"
        ],
        "ArgsEscaped": true,
        "Labels":{}
    },
    "architecture": "arm64",
    "os": "linux",
    "rootfs": {
        "type": "layers",
        "diff_ids": [
            "sha256:d1",
            "sha256:d2"
        ]
    },
    "history": [
        {

        },
        {
            "created": "2",
            "author": "me",
            "created_by": "a&\tb",
            "comment": ""
        },
        {
            "created": "2019-10-11T17:26:17.8Z",
            "created_by": "/bin/sh -c #(nop)  CMD [\"x\"]",
            "empty_layer": true
        }
    ]
}
"##;

    fn diff_ids(ids: &[Option<&str>]) -> Vec<Option<String>> {
        ids.iter().map(|id| id.map(str::to_owned)).collect()
    }

    #[test]
    fn the_config_of_an_image_is_exact() {
        let manifest = Schema1::parse(MANIFEST.as_bytes()).unwrap();
        let layers = manifest.layers().unwrap();
        let sums: Vec<_> = layers.iter().map(|layer| layer.blob_sum.as_deref().unwrap()).collect();
        assert_eq!(sums, ["sha256:one", "sha256:two", "sha256:empty"], "base first");
        assert_eq!(
            layers.iter().map(|layer| layer.document.throwaway).collect::<Vec<_>>(),
            [false, false, true]
        );
        let config =
            manifest.to_config(&layers, &diff_ids(&[Some("sha256:d1"), Some("sha256:d2"), None])).unwrap();
        // The tab is written as an escape.
        assert_eq!(config.to_text(), CONFIG.replace("&\tb", "&\\tb"));
    }

    #[test]
    fn a_layer_without_diff_id_fails_unless_it_is_empty() {
        let manifest = Schema1::parse(MANIFEST.as_bytes()).unwrap();
        let layers = manifest.layers().unwrap();
        for missing in
            [diff_ids(&[None, Some("a"), None]), diff_ids(&[Some("a"), None, None]), diff_ids(&[Some("a")])]
        {
            let error = manifest.to_config(&layers, &missing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{missing:?}");
        }
    }

    #[test]
    fn any_json_is_a_manifest_but_its_layers_are_counted() {
        for odd in ["[]", "{}", "null", r#"{"fsLayers":[{"blobSum":"a"}],"history":[]}"#] {
            let manifest = Schema1::parse(odd.as_bytes()).unwrap();
            assert_eq!(manifest.layers().unwrap_err().kind(), ErrorKind::InvalidData, "{odd}");
        }
        let many = |count: usize| {
            let layers = vec![r#"{"blobSum":"a"}"#; count].join(",");
            let history = vec![r#"{"v1Compatibility":"{}"}"#; count].join(",");
            Schema1::parse(format!(r#"{{"fsLayers":[{layers}],"history":[{history}]}}"#).as_bytes())
                .unwrap()
                .layers()
        };
        assert_eq!(many(125).unwrap().len(), 125);
        assert!(many(126).is_err());
        let bad = r#"{"fsLayers":[{"blobSum":"a"}],"history":[{"v1Compatibility":"x"}]}"#;
        assert!(Schema1::parse(bad.as_bytes()).unwrap().layers().is_err());
        assert!(Schema1::parse(b"").is_err());
    }
}
