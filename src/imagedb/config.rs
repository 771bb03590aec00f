// SPDX-License-Identifier: MulanPSL-2.0
//! The config of an image as Docker reads it: pure.
//!
//! Every member that Docker knows has to have the type that Docker expects, or a daemon would not load the image. Source:
//! Docker image specification v1.2, and what dockerd 20.10 accepts.

use super::shape::{self, Member, Node, Shape};
use crate::digest::{Digest, chain_ids};
use crate::error::{During, Error, ErrorKind, Result};

/// Longest config in bytes that is taken; Docker knows no limit, registries take 4 MiB.
pub const MAX_CONFIG: usize = 10 << 20;

/// The only operating system whose images are taken.
const LINUX: &str = "linux";

static RUN: &[Member] = &[
    ("user", Shape::Text),
    ("exposedports", Shape::Keys),
    ("env", Shape::Texts),
    ("entrypoint", Shape::TextOrTexts),
    ("cmd", Shape::TextOrTexts),
    ("volumes", Shape::Keys),
    ("workingdir", Shape::Text),
    ("labels", Shape::TextMap),
    ("stopsignal", Shape::Text),
    // Only looked at for their types, from here on.
    ("hostname", Shape::Text),
    ("domainname", Shape::Text),
    ("attachstdin", Shape::Flag),
    ("attachstdout", Shape::Flag),
    ("attachstderr", Shape::Flag),
    ("tty", Shape::Flag),
    ("openstdin", Shape::Flag),
    ("stdinonce", Shape::Flag),
    ("argsescaped", Shape::Flag),
    ("image", Shape::Text),
    ("networkdisabled", Shape::Flag),
    ("macaddress", Shape::Text),
    ("onbuild", Shape::Texts),
    ("stoptimeout", Shape::Number),
    ("shell", Shape::TextOrTexts),
    (
        "healthcheck",
        Shape::Object(&[
            ("test", Shape::Texts),
            ("interval", Shape::Number),
            ("timeout", Shape::Number),
            ("startperiod", Shape::Number),
            ("retries", Shape::Number),
        ]),
    ),
];

static HISTORY: &[Member] = &[
    ("created", Shape::Time),
    ("author", Shape::Text),
    ("created_by", Shape::Text),
    ("comment", Shape::Text),
    ("empty_layer", Shape::Flag),
];

static CONFIG: &[Member] = &[
    ("created", Shape::Time),
    ("author", Shape::Text),
    ("comment", Shape::Text),
    ("container", Shape::Text),
    ("docker_version", Shape::Text),
    ("architecture", Shape::Text),
    ("variant", Shape::Text),
    ("os", Shape::Text),
    ("os.version", Shape::Text),
    ("os.features", Shape::Texts),
    ("rootfs", Shape::Object(&[("type", Shape::Text), ("diff_ids", Shape::Texts)])),
    ("history", Shape::Objects(HISTORY)),
    ("config", Shape::Object(RUN)),
    // Only looked at for their types, from here on.
    ("container_config", Shape::Object(RUN)),
    ("id", Shape::Text),
    ("parent", Shape::Text),
    ("size", Shape::Number),
];

/// The config of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// When the image was made, RFC 3339.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// Container it was made from.
    pub container: Option<String>,
    /// Version of Docker that made it.
    pub docker_version: Option<String>,
    /// Processor, in Go's words.
    pub architecture: Option<String>,
    /// Variant of the processor.
    pub variant: Option<String>,
    /// Operating system, in Go's words; `None` is Linux.
    pub os: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system.
    pub os_features: Vec<String>,
    /// How a container of it is to run.
    pub run: RunConfig,
    /// What the layers are: `layers`.
    pub rootfs_type: Option<String>,
    /// Diff IDs of the layers, base first.
    pub diff_ids: Vec<Digest>,
    /// How each layer came about, base first.
    pub history: Vec<History>,
    /// Chain ID of the top layer; `None` of an image without layers.
    pub chain_id: Option<Digest>,
}

/// How a container of an image is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunConfig {
    /// `user`, `user:group`, names or numbers.
    pub user: Option<String>,
    /// `80/tcp` and the like.
    pub exposed_ports: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Command with arguments.
    pub entrypoint: Vec<String>,
    /// Arguments of the entry point, or command with arguments.
    pub cmd: Vec<String>,
    /// Paths.
    pub volumes: Vec<String>,
    /// Where the command starts.
    pub working_dir: Option<String>,
    /// Labels in order, without duplicates.
    pub labels: Vec<(String, String)>,
    /// Signal that asks a container to stop.
    pub stop_signal: Option<String>,
}

/// How a layer came about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When, RFC 3339.
    pub created: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// It made no layer.
    pub empty_layer: bool,
}

impl Config {
    /// Reads a config.
    ///
    /// Errors: `InvalidData` (no JSON, a member of a wrong type, no `rootfs`, a diff ID that is no SHA-256 digest),
    /// `LimitExceeded` (more than [`MAX_CONFIG`] bytes), `Unsupported` (not for Linux).
    pub fn parse(text: &[u8]) -> Result<Config> {
        read(text).during(|| "read image config")
    }

    /// Whether the history tells of no more layers than there are. Docker refuses to make an image where it does, but
    /// loads it.
    pub fn check_history(&self) -> Result<()> {
        if self.history.iter().filter(|entry| !entry.empty_layer).count() > self.diff_ids.len() {
            return Err(Error::new(ErrorKind::InvalidData, "too many non-empty layers in History section"));
        }
        Ok(())
    }
}

fn read(text: &[u8]) -> Result<Config> {
    if text.len() > MAX_CONFIG {
        let message = format!("it has {} bytes: the limit is {MAX_CONFIG}", text.len());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let no_rootfs = || Error::new(ErrorKind::InvalidData, "invalid image JSON, no RootFS key");
    let mut document = shape::read(text, CONFIG)
        .map_err(|error| Error::with_source(ErrorKind::InvalidData, "parse JSON", error))?;
    let mut members = document.members().unwrap_or_default().into_iter();
    let mut next = || members.next().unwrap_or_default();
    let mut config = Config {
        created: next().text(),
        author: next().text(),
        comment: next().text(),
        container: next().text(),
        docker_version: next().text(),
        architecture: next().text(),
        variant: next().text(),
        os: next().text(),
        os_version: next().text(),
        os_features: next().texts(),
        ..Config::default()
    };
    let mut rootfs = next().members().ok_or_else(no_rootfs)?.into_iter();
    config.rootfs_type = rootfs.next().unwrap_or_default().text();
    let diff_ids = rootfs.next().unwrap_or_default().texts();
    config.history = next().objects().into_iter().map(history).collect();
    config.run = run(&mut next());

    if let Some(other) = config.os.as_deref().filter(|os| !os.is_empty() && !os.eq_ignore_ascii_case(LINUX)) {
        let shown: String = other.chars().take(80).collect();
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("unsupported image operating system {shown:?}"),
        ));
    }
    for (place, text) in diff_ids.iter().enumerate() {
        let digest = Digest::parse(text)
            .map_err(|error| error.with_kind(ErrorKind::InvalidData).context(format!("diff id {place}")))?;
        config.diff_ids.push(digest);
    }
    config.chain_id = chain_ids(&config.diff_ids).last().copied();
    Ok(config)
}

fn history(mut entry: Node) -> History {
    let mut members = entry.members().unwrap_or_default().into_iter();
    let mut next = || members.next().unwrap_or_default();
    History {
        created: next().text(),
        author: next().text(),
        created_by: next().text(),
        comment: next().text(),
        empty_layer: next().flag(),
    }
}

fn run(config: &mut Node) -> RunConfig {
    let mut members = config.members().unwrap_or_default().into_iter();
    let mut next = || members.next().unwrap_or_default();
    RunConfig {
        user: next().text(),
        exposed_ports: next().texts(),
        env: next().texts(),
        entrypoint: next().texts(),
        cmd: next().texts(),
        volumes: next().texts(),
        working_dir: next().text(),
        labels: next().map(),
        stop_signal: next().text(),
    }
}
