// SPDX-License-Identifier: MulanPSL-2.0
//! What lists show of an image.

use crate::record::image::ImageRecord;
use crate::reference;
use crate::spec::config::ImageConfig;

use super::MANIFEST;

/// What lists show of an image: the reference's `imagetool_image_summary`, and `imagetool_image` without its spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its id.
    pub id: String,
    /// Names that are tags, sorted.
    pub repo_tags: Vec<String>,
    /// Names that are digests, and `<repository>@<digest>` for each tag.
    pub repo_digests: Vec<String>,
    /// Top layer.
    pub top_layer: Option<String>,
    /// Size in bytes: big data and all layers.
    pub size: u64,
    /// When it was made, as recorded.
    pub created: Option<String>,
    /// When it was loaded, as recorded.
    pub loaded: Option<String>,
    /// Numeric user of its config.
    pub uid: Option<i64>,
    /// User name of its config.
    pub username: Option<String>,
    /// Labels of its config; `None` when the config has no such member.
    pub labels: Option<Vec<(String, String)>>,
}

/// What lists show of a config.
#[derive(Debug, Clone, Default)]
pub(super) struct ShownConfig {
    uid: Option<i64>,
    username: Option<String>,
    labels: Option<Vec<(String, String)>>,
}

impl ShownConfig {
    pub(super) fn of(config: &ImageConfig) -> Self {
        let Some(run) = &config.config else { return ShownConfig::default() };
        let user = run.user.as_deref().and_then(|user| reference::parse_user_group(user).0);
        let uid = user.and_then(reference::parse_integer);
        let username = user.filter(|_| uid.is_none()).map(str::to_owned);
        ShownConfig { uid, username, labels: run.labels.clone() }
    }
}

impl ImageSummary {
    /// The summary of an image; without a config there is neither user nor labels. Pure.
    pub fn of(
        id: &str,
        record: &ImageRecord,
        config: Option<&ImageConfig>,
        default_host: Option<&str>,
    ) -> Self {
        ImageSummary::with(id, record, config.map(ShownConfig::of).as_ref(), default_host)
    }

    pub(super) fn with(
        id: &str,
        record: &ImageRecord,
        config: Option<&ShownConfig>,
        default_host: Option<&str>,
    ) -> Self {
        let (digests, tags): (Vec<_>, Vec<_>) =
            record.names.iter().cloned().partition(|name| reference::is_digest_name(name));
        ImageSummary {
            id: id.to_owned(),
            repo_digests: repo_digests(digests, &tags, search_digest(record), default_host),
            repo_tags: tags,
            top_layer: record.layer.clone(),
            size: record.size,
            created: record.created.clone(),
            loaded: record.loaded.clone(),
            uid: config.and_then(|config| config.uid),
            username: config.and_then(|config| config.username.clone()),
            labels: config.and_then(|config| config.labels.clone()),
        }
    }
}

/// The digest shown with each tag: the one it is searched by, else that of its manifest.
fn search_digest(record: &ImageRecord) -> Option<&str> {
    record.digest.as_deref().filter(|digest| !digest.is_empty()).or_else(|| manifest_digest(record))
}

/// The recorded digest of an image's manifest.
pub(super) fn manifest_digest(record: &ImageRecord) -> Option<&str> {
    let digests = record.big_data_digests.as_ref()?;
    digests.iter().find(|(key, _)| key == MANIFEST).map(|(_, digest)| digest.as_str())
}

fn repo_digests(
    mut digests: Vec<String>,
    tags: &[String],
    digest: Option<&str>,
    default_host: Option<&str>,
) -> Vec<String> {
    for name in
        digest.iter().flat_map(|digest| tags.iter().map(|tag| digest_reference(tag, digest, default_host)))
    {
        if !digests.contains(&name) {
            digests.push(name);
        }
    }
    digests
}

/// `<normalised repository>@<digest>` of a tag.
pub(super) fn digest_reference(tag: &str, digest: &str, default_host: Option<&str>) -> String {
    let name = reference::normalize(tag, default_host).unwrap_or_else(|_| tag.to_owned());
    format!("{}@{digest}", reference::without_tag(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::config::RunConfig;

    fn record(names: &[&str]) -> ImageRecord {
        ImageRecord { names: names.iter().map(|name| (*name).to_owned()).collect(), ..ImageRecord::default() }
    }

    fn config(user: &str) -> ImageConfig {
        let run = RunConfig {
            user: Some(user.into()),
            labels: Some(vec![("k".into(), "v".into())]),
            ..RunConfig::default()
        };
        ImageConfig { config: Some(run), ..ImageConfig::default() }
    }

    #[test]
    fn users_are_numbers_or_names() {
        let table = [
            ("", None, None),
            ("root", None, Some("root")),
            ("root:root", None, Some("root")),
            ("0", Some(0), None),
            ("0x10:5", Some(16), None),
            ("010", Some(8), None),
            ("1000a", None, Some("1000a")),
            // Fatal in the reference: such an image could be neither listed nor deleted.
            (":grp", None, None),
        ];
        for (user, uid, name) in table {
            let summary = ImageSummary::of("i", &record(&[]), Some(&config(user)), None);
            assert_eq!((summary.uid, summary.username.as_deref()), (uid, name), "{user:?}");
            assert_eq!(summary.labels.unwrap(), [("k".to_owned(), "v".to_owned())]);
        }
        let bare = ImageSummary::of("i", &record(&[]), None, None);
        assert_eq!((bare.uid, bare.username, bare.labels), (None, None, None));
    }

    #[test]
    fn repo_digests_are_digest_names_then_one_for_each_repository() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let named = format!("other@sha256:{}", "b".repeat(64));
        let mut record = record(&["docker.io/library/x:1", "h:5000/y:2", &named, "x:2"]);
        let of = |record: &ImageRecord| ImageSummary::of("i", record, None, Some("docker.io"));
        assert_eq!(of(&record).repo_digests, [named.as_str()], "no digest is known");
        record.big_data_digests = Some(vec![(MANIFEST.into(), digest.clone())]);
        let wanted = [named.clone(), format!("x@{digest}"), format!("h:5000/y@{digest}")];
        assert_eq!(of(&record).repo_digests, wanted);
        assert_eq!(of(&record).repo_tags, ["docker.io/library/x:1", "h:5000/y:2", "x:2"]);
        record.digest = Some(String::new());
        assert_eq!(of(&record).repo_digests, wanted, "an empty digest is none");
        record.digest = Some("sha256:c".into());
        assert_eq!(of(&record).repo_digests, [named, "x@sha256:c".into(), "h:5000/y@sha256:c".into()]);
    }
}
