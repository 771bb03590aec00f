// SPDX-License-Identifier: MulanPSL-2.0
//! OCI image config.
//!
//! Source: OCI image specification, "Image configuration". Members and strictness are those of the reference's
//! `oci_image_spec`: it requires more than the specification, so an image it cannot read is unreadable here too.

use crate::error::{During, Error, ErrorKind, Result};
use crate::json::{self, Map, ObjectWriter, Value};

/// An image config, with the members that `oci_image_spec` has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// When the image was made.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Processor, in Go's words. Required.
    pub architecture: String,
    /// Operating system, in Go's words. Required.
    pub os: String,
    /// How a container of it is to run.
    pub config: Option<RunConfig>,
    /// Its layers. Required.
    pub rootfs: RootFs,
    /// How each layer came about, base first.
    pub history: Vec<History>,
}

/// How a container of an image is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunConfig {
    /// `user`, `user:group`, names or numbers.
    pub user: Option<String>,
    /// Keys of `ExposedPorts`; `None` when the member is absent.
    pub exposed_ports: Option<Vec<String>>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Command with arguments.
    pub entrypoint: Vec<String>,
    /// Arguments of the entry point, or command with arguments.
    pub cmd: Vec<String>,
    /// Keys of `Volumes`; `None` when the member is absent.
    pub volumes: Option<Vec<String>>,
    /// Where the command starts.
    pub working_dir: Option<String>,
    /// Labels in order; `None` when the member is absent.
    pub labels: Option<Map<String>>,
    /// Signal that asks a container to stop.
    pub stop_signal: Option<String>,
    /// How to see whether a container is healthy.
    pub healthcheck: Option<HealthCheck>,
}

/// How to see whether a container is healthy. Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// What to run.
    pub test: Vec<String>,
    /// Time between two checks.
    pub interval: i64,
    /// How long one may take.
    pub timeout: i64,
    /// Time before failures count.
    pub start_period: i64,
    /// How many failures in a row make it unhealthy.
    pub retries: i32,
    /// iSulad's extension: stop an unhealthy container.
    pub exit_on_unhealthy: bool,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootFs {
    /// `layers`.
    pub kind: String,
    /// Diff IDs, base first; never empty.
    pub diff_ids: Vec<String>,
}

/// How a layer came about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When.
    pub created: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// It changed no file and has no layer.
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a config. `architecture`, `os` and `rootfs` with its type and at least one diff ID are required; a label
    /// that is no string fails. `InvalidData` if it is not so.
    pub fn parse(text: &[u8]) -> Result<Self> {
        json::parse(text).and_then(|value| Self::from_value(&value)).during(|| "read image config")
    }

    fn from_value(value: &Value) -> Result<Self> {
        Ok(ImageConfig {
            created: value.string("created"),
            author: value.string("author"),
            architecture: value.required_string("architecture")?,
            os: value.required_string("os")?,
            config: value.object("config").map(RunConfig::from_value).transpose()?,
            rootfs: RootFs::from_value(value.required_object("rootfs")?)?,
            history: value.array("history").iter().map(History::from_value).collect(),
        })
    }
}

impl RunConfig {
    fn from_value(value: &Value) -> Result<Self> {
        Ok(RunConfig {
            user: value.string("User"),
            exposed_ports: value.keys("ExposedPorts"),
            env: value.strings("Env"),
            entrypoint: value.strings("Entrypoint"),
            cmd: value.strings("Cmd"),
            volumes: value.keys("Volumes"),
            working_dir: value.string("WorkingDir"),
            labels: value.string_map("Labels")?,
            stop_signal: value.string("StopSignal"),
            healthcheck: value.object("Healthcheck").map(HealthCheck::from_value).transpose()?,
        })
    }
}

impl HealthCheck {
    pub(super) fn from_value(value: &Value) -> Result<Self> {
        Ok(HealthCheck {
            test: value.strings("Test"),
            interval: value.int64("Interval")?,
            timeout: value.int64("Timeout")?,
            start_period: value.int64("StartPeriod")?,
            retries: value.int32("Retries")?,
            exit_on_unhealthy: value.flag("ExitOnUnhealthy"),
        })
    }

    pub(super) fn write(&self, w: &mut ObjectWriter<'_>) {
        w.strings("Test", &self.test);
        w.signed("Interval", self.interval);
        w.signed("Timeout", self.timeout);
        w.signed("StartPeriod", self.start_period);
        w.signed("Retries", self.retries);
        w.flag("ExitOnUnhealthy", self.exit_on_unhealthy);
    }
}

impl RootFs {
    fn from_value(value: &Value) -> Result<Self> {
        let rootfs = RootFs { kind: value.required_string("type")?, diff_ids: value.strings("diff_ids") };
        if rootfs.diff_ids.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "image config without diff IDs"));
        }
        Ok(rootfs)
    }
}

impl History {
    pub(super) fn from_value(value: &Value) -> Self {
        History {
            created: value.string("created"),
            author: value.string("author"),
            created_by: value.string("created_by"),
            comment: value.string("comment"),
            empty_layer: value.flag("empty_layer"),
        }
    }

    pub(super) fn write(&self, w: &mut ObjectWriter<'_>) {
        w.string("created", self.created.as_deref());
        w.string("author", self.author.as_deref());
        w.string("created_by", self.created_by.as_deref());
        w.string("comment", self.comment.as_deref());
        w.flag("empty_layer", self.empty_layer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rest: &str) -> String {
        format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:a"]}}{rest}}}"#
        )
    }

    fn read(text: &str) -> Result<ImageConfig> {
        ImageConfig::parse(text.as_bytes())
    }

    #[test]
    fn all_members_are_read() {
        let config = read(&text(
            r#","created":"c","author":"me","history":[{"created":"1","author":"2","created_by":"3","comment":"4",
            "empty_layer":true},{}],"config":{"User":"u:g","ExposedPorts":{"80/tcp":{},"81/tcp":null},"Env":["A=b"],
            "Entrypoint":["e"],"Cmd":["c","d"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"b":"1","a":""},
            "StopSignal":"TERM","Healthcheck":{"Test":["CMD","x"],"Interval":1,"Timeout":2,"StartPeriod":3,"Retries":4,
            "ExitOnUnhealthy":true}}"#,
        ))
        .unwrap();
        assert_eq!(config.created.as_deref(), Some("c"));
        assert_eq!(config.author.as_deref(), Some("me"));
        assert_eq!((config.architecture.as_str(), config.os.as_str()), ("amd64", "linux"));
        assert_eq!(config.rootfs, RootFs { kind: "layers".into(), diff_ids: vec!["sha256:a".into()] });
        assert_eq!(config.history.len(), 2);
        assert_eq!(config.history[0].created_by.as_deref(), Some("3"));
        assert!(config.history[0].empty_layer && !config.history[1].empty_layer);
        let run = config.config.unwrap();
        assert_eq!(run.user.as_deref(), Some("u:g"));
        assert_eq!(run.exposed_ports.unwrap(), ["80/tcp", "81/tcp"]);
        assert_eq!(
            (run.env, run.entrypoint, run.cmd.len()),
            (vec!["A=b".to_owned()], vec!["e".to_owned()], 2)
        );
        assert_eq!(run.volumes.unwrap(), ["/v"]);
        assert_eq!(run.working_dir.as_deref(), Some("/w"));
        assert_eq!(run.labels.unwrap(), [("b".to_owned(), "1".to_owned()), ("a".to_owned(), String::new())]);
        assert_eq!(run.stop_signal.as_deref(), Some("TERM"));
        let check = run.healthcheck.unwrap();
        let wanted = HealthCheck {
            test: vec!["CMD".into(), "x".into()],
            interval: 1,
            timeout: 2,
            start_period: 3,
            retries: 4,
            exit_on_unhealthy: true,
        };
        assert_eq!(check, wanted);
    }

    #[test]
    fn null_and_wrong_types_are_absent() {
        let config = read(&text(
            r#","config":{"User":5,"Entrypoint":null,"Cmd":"x","Volumes":null,"Labels":null,"Healthcheck":[]}"#,
        ));
        assert_eq!(config.unwrap().config.unwrap(), RunConfig::default());
        assert_eq!(read(&text(r#","config":null,"history":{}"#)).unwrap().config, None);
    }

    #[test]
    fn required_members_are_required() {
        for bad in [
            "{}".to_owned(),
            "[]".to_owned(),
            r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":["a"]}}"#.to_owned(),
            r#"{"architecture":"x","rootfs":{"type":"layers","diff_ids":["a"]}}"#.to_owned(),
            r#"{"architecture":"x","os":"linux"}"#.to_owned(),
            r#"{"architecture":"x","os":"linux","rootfs":{"diff_ids":["a"]}}"#.to_owned(),
            r#"{"architecture":"x","os":"linux","rootfs":{"type":"layers"}}"#.to_owned(),
            r#"{"architecture":"x","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_owned(),
            text(r#","config":{"Labels":{"a":null}}"#),
            text(r#","config":{"Labels":{"a":1}}"#),
            text(r#","config":{"Healthcheck":{"Retries":2147483648}}"#),
        ] {
            assert_eq!(read(&bad).unwrap_err().kind(), ErrorKind::InvalidData, "{bad}");
        }
    }
}
