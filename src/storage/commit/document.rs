// SPDX-License-Identifier: MulanPSL-2.0
//! Config and manifest of an image with one layer more. Pure.

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::config::ImageConfig;
use crate::spec::descriptor::{DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, OCI_CONFIG, OCI_LAYER};
use crate::spec::docker_archive::made_up_manifest;
use crate::spec::oci_layout::Blob;
use crate::time::Timestamp;

use super::CommitOptions;

/// What the history says of the new layer.
const CREATED_BY: &str = "isula-storage commit";
/// What Docker keeps of the container that an image was made in: it would be another one's.
const OF_THE_CONTAINER: [&str; 2] = ["container", "container_config"];

/// Something that is to be different for containers of the new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageChange {
    /// Arguments of the entry point, or command with arguments.
    Cmd(Vec<String>),
    /// Command with arguments. The image's own arguments go, unless new ones are given as well.
    Entrypoint(Vec<String>),
    /// A variable of the environment.
    Env {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// `user`, `user:group`, names or numbers.
    User(String),
    /// Where the command starts.
    WorkingDir(String),
    /// A label.
    Label {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A port, `80` or `80/udp`.
    ExposedPort(String),
}

impl ImageChange {
    /// Reads an instruction as a Dockerfile has it: `CMD`, `ENTRYPOINT` (a JSON array of texts, or a line for the shell), `ENV
    /// name=value`, `USER`, `WORKDIR`, `LABEL name=value`, `EXPOSE port`. Anything else: `InvalidArgument`.
    pub fn parse(text: &str) -> Result<ImageChange> {
        let wrong = |why: &str| Error::invalid(format!("change {text:?}: {why}"));
        let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(wrong("it says nothing after its first word"));
        }
        let pair = || {
            let (name, value) = rest
                .split_once('=')
                .or_else(|| rest.split_once(char::is_whitespace))
                .ok_or_else(|| wrong("it is not of the form name=value"))?;
            let value = value.trim();
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            if name.is_empty() {
                return Err(wrong("it has no name"));
            }
            Ok((name.trim().to_owned(), unquoted.unwrap_or(value).to_owned()))
        };
        let command = || match rest.starts_with('[') {
            true => serde_json::from_str::<Vec<String>>(rest)
                .map_err(|error| wrong(&format!("it is no array of texts: {error}"))),
            false => Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()]),
        };
        Ok(match word.to_ascii_uppercase().as_str() {
            "CMD" => ImageChange::Cmd(command()?),
            "ENTRYPOINT" => ImageChange::Entrypoint(command()?),
            "ENV" => pair().map(|(name, value)| ImageChange::Env { name, value })?,
            "LABEL" => pair().map(|(name, value)| ImageChange::Label { name, value })?,
            "USER" => ImageChange::User(rest.to_owned()),
            "WORKDIR" => ImageChange::WorkingDir(rest.to_owned()),
            "EXPOSE" => {
                let (port, protocol) = rest.split_once('/').unwrap_or((rest, "tcp"));
                let known = matches!(protocol, "tcp" | "udp" | "sctp");
                if !known || port.parse::<u16>().is_err() {
                    return Err(wrong("it is not of the form port or port/protocol"));
                }
                ImageChange::ExposedPort(format!("{port}/{protocol}"))
            }
            _ => return Err(wrong("only CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL and EXPOSE are known")),
        })
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// The member, made an empty object if it is not there.
fn object<'a>(of: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>> {
    let member = of.entry(key).or_insert(Value::Null);
    if member.is_null() {
        *member = json!({});
    }
    member.as_object_mut().ok_or_else(|| invalid(&format!("member {key} of the config is no object")))
}

/// The config `text` (of which `facts` are known) with one layer more.
pub(super) fn config(
    text: &[u8],
    facts: &ImageConfig,
    diff_id: Digest,
    created: Timestamp,
    options: &CommitOptions,
) -> Result<Vec<u8>> {
    let unreadable = |error| Error::with_source(ErrorKind::InvalidData, "read the image's config", error);
    let mut config: Map<String, Value> = serde_json::from_slice(text).map_err(unreadable)?;
    let created =
        created.to_utc_text().ok_or_else(|| Error::invalid("the clock shows a time beyond the calendar"))?;
    OF_THE_CONTAINER.iter().for_each(|key| drop(config.remove(*key)));
    config.insert("created".to_owned(), json!(created));
    if let Some(author) = &options.author {
        config.insert("author".to_owned(), json!(author));
    }
    object(&mut config, "rootfs")?
        .get_mut("diff_ids")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| invalid("the config has no diff_ids"))?
        .push(json!(diff_id.to_string()));
    // One entry for each layer, or none can be told from the others.
    let layers = facts.history.iter().filter(|entry| !entry.empty_layer).count();
    if layers == facts.rootfs.diff_ids.len() {
        let mut entry = json!({ "created": created, "created_by": CREATED_BY });
        for (key, value) in [("author", &options.author), ("comment", &options.message)] {
            if let (Some(value), Value::Object(entry)) = (value, &mut entry) {
                entry.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut) {
            history.push(entry);
        }
    } else {
        log::warn!("the image's history does not fit its layers: nothing is added to it");
    }
    change(object(&mut config, "config")?, &options.changes)?;
    serde_json::to_vec(&config)
        .map_err(|error| Error::with_source(ErrorKind::InvalidData, "write the image's config", error))
}

fn change(run: &mut Map<String, Value>, changes: &[ImageChange]) -> Result<()> {
    let keeps_cmd = changes.iter().any(|change| matches!(change, ImageChange::Cmd(_)));
    for change in changes {
        match change {
            ImageChange::Cmd(words) => drop(run.insert("Cmd".to_owned(), json!(words))),
            ImageChange::Entrypoint(words) => {
                run.insert("Entrypoint".to_owned(), json!(words));
                if !keeps_cmd {
                    run.remove("Cmd");
                }
            }
            ImageChange::Env { name, value } => {
                let env = run.entry("Env").or_insert(Value::Null);
                if env.is_null() {
                    *env = json!([]);
                }
                let env = env.as_array_mut().ok_or_else(|| invalid("Env of the config is no array"))?;
                let new = json!(format!("{name}={value}"));
                let same = |held: &Value| {
                    let held = held.as_str().unwrap_or_default();
                    held.split_once('=').map_or(held, |(held, _)| held) == name
                };
                match env.iter_mut().find(|held| same(held)) {
                    Some(held) => *held = new,
                    None => env.push(new),
                }
            }
            ImageChange::User(user) => drop(run.insert("User".to_owned(), json!(user))),
            ImageChange::WorkingDir(dir) => drop(run.insert("WorkingDir".to_owned(), json!(dir))),
            ImageChange::Label { name, value } => {
                object(run, "Labels")?.insert(name.clone(), json!(value));
            }
            ImageChange::ExposedPort(port) => {
                object(run, "ExposedPorts")?.insert(port.clone(), json!({}));
            }
        }
    }
    Ok(())
}

/// The layer that was added.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewLayer {
    pub(super) diff_id: Digest,
    pub(super) tar_size: u64,
    pub(super) blob: Blob,
}

/// The manifest of the image with one layer more: a genuine one goes on as it was; one that iSulad's load made up, or one
/// that does not fit, is made up again.
pub(super) fn manifest(
    old: Option<&[u8]>,
    diff_ids: &[Digest],
    config: Blob,
    last: &NewLayer,
    compressed: bool,
) -> Result<Vec<u8>> {
    let (_, below) = diff_ids.split_last().ok_or_else(|| invalid("the image has no layer"))?;
    let old: Value = old.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let layers = old.get("layers").and_then(Value::as_array).filter(|layers| layers.len() == below.len());
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let size = |layer: &Value| layer.get("size").and_then(Value::as_u64).unwrap_or_default();
    let genuine = layers.filter(|layers| {
        layers.iter().zip(below).any(|(layer, diff_id)| {
            text(layer, "digest") != diff_id.to_string() || text(layer, "mediaType") != DOCKER_LAYER_GZIP
        })
    });
    let Some(layers) = genuine else {
        let sizes: Vec<u64> =
            layers.map_or_else(|| vec![0; below.len()], |layers| layers.iter().map(size).collect());
        let blobs = below.iter().zip(sizes).map(|(digest, size)| Blob { digest: *digest, size });
        let last = Blob { digest: last.diff_id, size: last.tar_size };
        let blobs: Vec<Blob> = blobs.chain([last]).collect();
        return made_up_manifest(config, &blobs);
    };
    let docker = old.get("config").map(|config| text(config, "mediaType")).as_deref() == Some(DOCKER_CONFIG);
    let layer_type = match (docker, compressed) {
        (true, true) => DOCKER_LAYER_GZIP.to_owned(),
        (true, false) => DOCKER_LAYER.to_owned(),
        (false, true) => format!("{OCI_LAYER}+gzip"),
        (false, false) => OCI_LAYER.to_owned(),
    };
    let entry = |kind: &str, blob: &Blob| json!({ "mediaType": kind, "digest": blob.digest.to_string(), "size": blob.size });
    let layers: Vec<Value> = layers.iter().cloned().chain([entry(&layer_type, &last.blob)]).collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "config": entry(if docker { DOCKER_CONFIG } else { OCI_CONFIG }, &config),
        "layers": layers,
    });
    if let (Some(kind), Value::Object(manifest)) = (old.get("mediaType"), &mut manifest) {
        manifest.insert("mediaType".to_owned(), kind.clone());
    }
    serde_json::to_vec(&manifest)
        .map_err(|error| Error::with_source(ErrorKind::InvalidData, "write the image's manifest", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_written_as_in_a_dockerfile() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let env = |(name, value)| ImageChange::Env { name, value };
        let label = |(name, value)| ImageChange::Label { name, value };
        let table = [
            (r#"CMD ["a", "b c"]"#, ImageChange::Cmd(texts(&["a", "b c"]))),
            ("cmd a b", ImageChange::Cmd(texts(&["/bin/sh", "-c", "a b"]))),
            ("ENTRYPOINT [\"/x\"]", ImageChange::Entrypoint(texts(&["/x"]))),
            ("ENV A=b=c", env(named("A", "b=c"))),
            ("ENV A b c", env(named("A", "b c"))),
            ("LABEL a=\"b c\"", label(named("a", "b c"))),
            ("USER 1000:5", ImageChange::User("1000:5".to_owned())),
            (" WORKDIR  /a b ", ImageChange::WorkingDir("/a b".to_owned())),
            ("EXPOSE 80", ImageChange::ExposedPort("80/tcp".to_owned())),
            ("EXPOSE 53/udp", ImageChange::ExposedPort("53/udp".to_owned())),
        ];
        for (text, expected) in table {
            assert_eq!(ImageChange::parse(text).unwrap(), expected, "{text}");
        }
        for bad in
            ["", "CMD", "CMD [1]", "CMD [", "ENV", "ENV A", "LABEL =x", "EXPOSE x", "EXPOSE 80/x", "RUN rm"]
        {
            assert_eq!(ImageChange::parse(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }

    fn parent(history: &str) -> String {
        let digest = Digest::of(b"below");
        format!(
            r#"{{"architecture":"amd64","os":"linux","unknown":[1],"container":"x","author":"one","config":{{"Env":["A=1",
                "B=2"],"Cmd":["old"]}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}{history}}}"#
        )
    }

    fn changed(text: &str, options: &CommitOptions) -> Value {
        let facts = ImageConfig::parse(text.as_bytes()).unwrap();
        let created = Timestamp { seconds: 1_000_000_000, nanos: 0 };
        let new = config(text.as_bytes(), &facts, Digest::of(b"new"), created, options).unwrap();
        ImageConfig::parse(&new).unwrap();
        serde_json::from_slice(&new).unwrap()
    }

    #[test]
    fn a_config_keeps_what_it_says_and_gains_a_layer() {
        let options = CommitOptions {
            author: Some("two".to_owned()),
            message: Some("why".to_owned()),
            changes: ["ENV A=9", "ENV C=3", "LABEL l=v", "EXPOSE 1", "ENTRYPOINT [\"/e\"]", "USER u"]
                .map(|text| ImageChange::parse(text).unwrap())
                .to_vec(),
            ..CommitOptions::default()
        };
        let new = changed(&parent(r#","history":[{"created_by":"a"},{"empty_layer":true}]"#), &options);
        assert_eq!(new["unknown"], json!([1]));
        assert_eq!(new.get("container"), None);
        assert_eq!(new["author"], "two");
        assert_eq!(new["rootfs"]["diff_ids"][1], Digest::of(b"new").to_string());
        assert_eq!(new["history"].as_array().unwrap().len(), 3);
        assert_eq!(new["history"][2]["comment"], "why");
        assert_eq!(new["created"], new["history"][2]["created"]);
        let run = json!({
            "Env": ["A=9", "B=2", "C=3"], "Labels": {"l": "v"}, "ExposedPorts": {"1/tcp": {}}, "Entrypoint": ["/e"],
            "User": "u",
        });
        assert_eq!(new["config"], run);
        // A history that says nothing of the layers below says nothing of this one.
        assert_eq!(changed(&parent(""), &CommitOptions::default()).get("history"), None);
    }

    #[test]
    fn a_manifest_goes_on_in_its_own_way() {
        let (below, new) = (Digest::of(b"below"), Digest::of(b"new"));
        let config = Blob { digest: Digest::of(b"config"), size: 6 };
        let last =
            NewLayer { diff_id: new, tar_size: 1024, blob: Blob { digest: Digest::of(b"gz"), size: 99 } };
        let made = |old: Option<&[u8]>, compressed| -> Value {
            let made = manifest(old, &[below, new], config, &last, compressed).unwrap();
            serde_json::from_slice(&made).unwrap()
        };
        let made_up = made_up_manifest(config, &[Blob { digest: below, size: 5 }]).unwrap();
        for (old, size) in
            [(Some(made_up.as_slice()), json!(5)), (None, Value::Null), (Some(&b"x"[..]), Value::Null)]
        {
            let manifest = made(old, true);
            assert_eq!(manifest["layers"][0]["size"], size);
            assert_eq!(manifest["layers"][1]["digest"], new.to_string());
            assert_eq!(manifest["config"]["digest"], config.digest.to_string());
        }
        let genuine = format!(
            r#"{{"schemaVersion":2,"mediaType":"m","config":{{"mediaType":"{OCI_CONFIG}","digest":"x","size":1}},
                "layers":[{{"mediaType":"{OCI_LAYER}+zstd","digest":"{below}","size":7,"urls":[]}}],"annotations":{{}}}}"#
        );
        for (compressed, kind) in [(true, format!("{OCI_LAYER}+gzip")), (false, OCI_LAYER.to_owned())] {
            let manifest = made(Some(genuine.as_bytes()), compressed);
            assert_eq!(manifest["mediaType"], "m");
            assert_eq!(manifest["layers"][0]["mediaType"], format!("{OCI_LAYER}+zstd"));
            let layer = json!({"mediaType": kind, "digest": Digest::of(b"gz").to_string(), "size": 99});
            assert_eq!(manifest["layers"][1], layer);
            assert_eq!(manifest.get("annotations"), None);
        }
    }
}
