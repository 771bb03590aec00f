// SPDX-License-Identifier: MulanPSL-2.0
//! Docker's image config, read and written with the members and in the order of the reference.
//!
//! Writing is byte-exact because the id of an image converted from schema 1 is the digest of this text.

use super::config::{HealthCheck, History};
use crate::error::{During, Result};
use crate::json::{self, Map, ObjectWriter, Value};

/// Docker's image config. Members that the reference does not know (`OnBuild` with a capital B, for one) are dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// Id of schema 1.
    pub id: Option<String>,
    /// Parent's id of schema 1.
    pub parent: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// When the image was made.
    pub created: Option<String>,
    /// Container it was made from.
    pub container: Option<String>,
    /// Config of that container.
    pub container_config: Option<ContainerConfig>,
    /// Version of Docker that made it.
    pub docker_version: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// How a container of it is to run.
    pub config: Option<ContainerConfig>,
    /// Processor, in Go's words.
    pub architecture: Option<String>,
    /// Operating system, in Go's words.
    pub os: Option<String>,
    /// Size of the layer in bytes, in schema 1.
    pub size: i64,
    /// What it was made from.
    pub from: Option<String>,
    /// Its layers.
    pub rootfs: Option<DockerRootFs>,
    /// How each layer came about, base first.
    pub history: Vec<History>,
    /// Never seen in practice; kept as text.
    pub raw_json: Option<String>,
    /// Never seen in practice.
    pub computed_id: Option<String>,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerRootFs {
    /// `layers`.
    pub kind: Option<String>,
    /// Diff IDs, base first.
    pub diff_ids: Vec<String>,
}

/// Docker's container config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    clippy::struct_excessive_bools,
    reason = "members of a foreign document, by their own names"
)]
pub struct ContainerConfig {
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub user: Option<String>,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub exposed_ports: Option<Vec<String>>,
    pub publish_service: Option<String>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Vec<String>,
    pub cmd: Vec<String>,
    pub args_escaped: bool,
    pub image: Option<String>,
    pub image_ref: Option<String>,
    pub volumes: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub entrypoint: Vec<String>,
    pub network_disabled: bool,
    pub mac_address: Option<String>,
    pub onbuild: Vec<String>,
    pub labels: Option<Map<String>>,
    pub log_driver: Option<String>,
    pub annotations: Option<Map<String>>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<HealthCheck>,
    pub system_container: bool,
    pub ns_change_opt: Option<String>,
    pub mounts: Vec<String>,
}

impl DockerConfig {
    /// Reads a config; nothing is required. `InvalidData` when it is no JSON or a number or map does not fit.
    pub fn parse(text: &[u8]) -> Result<Self> {
        json::parse(text).and_then(|value| Self::from_value(&value)).during(|| "read Docker image config")
    }

    fn from_value(value: &Value) -> Result<Self> {
        let container = |key| value.object(key).map(ContainerConfig::from_value).transpose();
        Ok(DockerConfig {
            id: value.string("id"),
            parent: value.string("parent"),
            comment: value.string("comment"),
            created: value.string("created"),
            container: value.string("container"),
            container_config: container("container_config")?,
            docker_version: value.string("docker_version"),
            author: value.string("author"),
            config: container("config")?,
            architecture: value.string("architecture"),
            os: value.string("os"),
            size: value.int64("Size")?,
            from: value.string("From"),
            rootfs: value.object("rootfs").map(|rootfs| DockerRootFs {
                kind: rootfs.string("type"),
                diff_ids: rootfs.strings("diff_ids"),
            }),
            history: value.array("history").iter().map(History::from_value).collect(),
            raw_json: value.string("rawJSON"),
            computed_id: value.string("computedID"),
        })
    }

    /// Writes the config as the reference does.
    pub fn to_text(&self) -> String {
        json::to_text(|w| {
            w.string("id", self.id.as_deref());
            w.string("parent", self.parent.as_deref());
            w.string("comment", self.comment.as_deref());
            w.string("created", self.created.as_deref());
            w.string("container", self.container.as_deref());
            if let Some(config) = &self.container_config {
                w.object("container_config", |w| config.write(w));
            }
            w.string("docker_version", self.docker_version.as_deref());
            w.string("author", self.author.as_deref());
            if let Some(config) = &self.config {
                w.object("config", |w| config.write(w));
            }
            w.string("architecture", self.architecture.as_deref());
            w.string("os", self.os.as_deref());
            w.signed("Size", self.size);
            w.string("From", self.from.as_deref());
            if let Some(rootfs) = &self.rootfs {
                w.object("rootfs", |w| {
                    w.string("type", rootfs.kind.as_deref());
                    w.strings("diff_ids", &rootfs.diff_ids);
                });
            }
            w.objects("history", &self.history, |w, entry| entry.write(w));
            w.string("rawJSON", self.raw_json.as_deref().filter(|text| !text.is_empty()));
            w.string("computedID", self.computed_id.as_deref());
        })
    }
}

impl ContainerConfig {
    fn from_value(value: &Value) -> Result<Self> {
        Ok(ContainerConfig {
            hostname: value.string("Hostname"),
            domainname: value.string("Domainname"),
            user: value.string("User"),
            attach_stdin: value.flag("AttachStdin"),
            attach_stdout: value.flag("AttachStdout"),
            attach_stderr: value.flag("AttachStderr"),
            exposed_ports: value.keys("ExposedPorts"),
            publish_service: value.string("PublishService"),
            tty: value.flag("Tty"),
            open_stdin: value.flag("OpenStdin"),
            stdin_once: value.flag("StdinOnce"),
            env: value.strings("Env"),
            cmd: value.strings("Cmd"),
            args_escaped: value.flag("ArgsEscaped"),
            image: value.string("Image"),
            image_ref: value.string("ImageRef"),
            volumes: value.keys("Volumes"),
            working_dir: value.string("WorkingDir"),
            entrypoint: value.strings("Entrypoint"),
            network_disabled: value.flag("NetworkDisabled"),
            mac_address: value.string("MacAddress"),
            onbuild: value.strings("Onbuild"),
            labels: value.string_map("Labels")?,
            log_driver: value.string("LogDriver"),
            annotations: value.string_map("Annotations")?,
            stop_signal: value.string("StopSignal"),
            healthcheck: value.object("Healthcheck").map(HealthCheck::from_value).transpose()?,
            system_container: value.flag("SystemContainer"),
            ns_change_opt: value.string("NsChangeOpt"),
            mounts: value.strings("Mounts"),
        })
    }

    fn write(&self, w: &mut ObjectWriter<'_>) {
        w.string("Hostname", self.hostname.as_deref());
        w.string("Domainname", self.domainname.as_deref());
        w.string("User", self.user.as_deref());
        w.flag("AttachStdin", self.attach_stdin);
        w.flag("AttachStdout", self.attach_stdout);
        w.flag("AttachStderr", self.attach_stderr);
        w.key_map("ExposedPorts", self.exposed_ports.as_deref());
        w.string("PublishService", self.publish_service.as_deref());
        w.flag("Tty", self.tty);
        w.flag("OpenStdin", self.open_stdin);
        w.flag("StdinOnce", self.stdin_once);
        w.strings("Env", &self.env);
        w.strings("Cmd", &self.cmd);
        w.flag("ArgsEscaped", self.args_escaped);
        w.string("Image", self.image.as_deref());
        w.string("ImageRef", self.image_ref.as_deref());
        w.key_map("Volumes", self.volumes.as_deref());
        w.string("WorkingDir", self.working_dir.as_deref());
        w.strings("Entrypoint", &self.entrypoint);
        w.flag("NetworkDisabled", self.network_disabled);
        w.string("MacAddress", self.mac_address.as_deref());
        w.strings("Onbuild", &self.onbuild);
        w.string_map("Labels", self.labels.as_deref());
        w.string("LogDriver", self.log_driver.as_deref());
        w.string_map("Annotations", self.annotations.as_deref());
        w.string("StopSignal", self.stop_signal.as_deref());
        if let Some(check) = &self.healthcheck {
            w.object("Healthcheck", |w| check.write(w));
        }
        w.flag("SystemContainer", self.system_container);
        w.string("NsChangeOpt", self.ns_change_opt.as_deref());
        w.strings("Mounts", &self.mounts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_survive_in_the_order_of_the_schema() {
        let text = r#"{
    "id": "1",
    "parent": "2",
    "comment": "3",
    "created": "4",
    "container": "5",
    "container_config": {

    },
    "docker_version": "6",
    "author": "7",
    "config": {
        "Hostname": "1",
        "Domainname": "2",
        "User": "3",
        "AttachStdin": true,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": {
            "80/tcp":{}
        },
        "PublishService": "4",
        "Tty": true,
        "OpenStdin": true,
        "StdinOnce": true,
        "Env": [
            "A=b"
        ],
        "Cmd": [
            "c"
        ],
        "ArgsEscaped": true,
        "Image": "5",
        "ImageRef": "6",
        "Volumes":{},
        "WorkingDir": "7",
        "Entrypoint": [
            "e"
        ],
        "NetworkDisabled": true,
        "MacAddress": "8",
        "Onbuild": [
            "o"
        ],
        "Labels":{},
        "LogDriver": "9",
        "Annotations": {
            "a": "b"
        },
        "StopSignal": "10",
        "Healthcheck": {
            "Test": [
                "t"
            ],
            "Interval": 1,
            "Timeout": 2,
            "StartPeriod": 3,
            "Retries": 4,
            "ExitOnUnhealthy": true
        },
        "SystemContainer": true,
        "NsChangeOpt": "11",
        "Mounts": [
            "m"
        ]
    },
    "architecture": "8",
    "os": "9",
    "Size": 10,
    "From": "11",
    "rootfs": {
        "type": "layers",
        "diff_ids": [
            "sha256:a"
        ]
    },
    "history": [
        {
            "created": "1",
            "author": "2",
            "created_by": "3",
            "comment": "4",
            "empty_layer": true
        },
        {

        }
    ],
    "rawJSON": "12",
    "computedID": "13"
}
"#;
        assert_eq!(DockerConfig::parse(text.as_bytes()).unwrap().to_text(), text);
    }

    #[test]
    fn nothing_is_required_and_what_is_unknown_is_dropped() {
        for empty in ["{}", "[]", r#"{"OnBuild":["x"],"Size":"5","config":null}"#] {
            assert_eq!(DockerConfig::parse(empty.as_bytes()).unwrap(), DockerConfig::default(), "{empty}");
        }
        for bad in ["", r#"{"Size":1.5}"#, r#"{"config":{"Labels":{"a":null}}}"#] {
            assert!(DockerConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
