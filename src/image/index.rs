// SPDX-License-Identifier: MulanPSL-2.0
//! Images in memory: by id, by name, by digest, in order. No files.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{self, ImageId};
use crate::record::image::ImageRecord;
use crate::reference;
use crate::spec::config::ImageConfig;

use super::summary::{ImageSummary, ShownConfig, digest_reference, manifest_digest};

/// An image. Never changed: a change makes a new one in its place.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) id: ImageId,
    pub(super) record: Arc<ImageRecord>,
    pub(super) config: Config,
    pub(super) summary: Arc<ImageSummary>,
    /// The record on disk is another one.
    pub(super) unsaved: bool,
}

/// The config of an image.
#[derive(Debug, Clone)]
pub(super) enum Config {
    Whole(Arc<WholeConfig>),
    Missing,
    Broken(Arc<str>),
}

/// A config that can be read. As text it takes a fraction of the memory, and it is rarely asked for.
#[derive(Debug)]
pub(super) struct WholeConfig {
    text: Box<[u8]>,
    /// What lists show of it.
    shown: ShownConfig,
}

impl Image {
    pub(super) fn new(id: ImageId, record: ImageRecord, config: Config, default_host: Option<&str>) -> Self {
        let summary = ImageSummary::with(id.as_str(), &record, config.shown(), default_host);
        Image { id, record: Arc::new(record), config, summary: Arc::new(summary), unsaved: false }
    }

    /// The same image with another record.
    pub(super) fn with_record(&self, record: ImageRecord, default_host: Option<&str>) -> Self {
        Image::new(self.id.clone(), record, self.config.clone(), default_host)
    }

    /// Digests by which it is found, without duplicates.
    fn digests(&self) -> impl Iterator<Item = &str> {
        let manifest = manifest_digest(&self.record);
        let digest = self.record.digest.as_deref().filter(|digest| Some(*digest) != manifest);
        manifest.into_iter().chain(digest)
    }

    /// Whether a digest reference means this image: the repository must be one of its tags'.
    fn is_meant_by(&self, reference: &str, digest: &str, default_host: Option<&str>) -> bool {
        let tags = self.record.names.iter().filter(|name| !reference::is_digest_name(name));
        tags.into_iter().any(|tag| digest_reference(tag, digest, default_host) == reference)
    }
}

impl Config {
    /// Reads the content of a config file.
    pub(super) fn read(content: &[u8]) -> Self {
        match ImageConfig::parse(content) {
            Ok(config) => {
                let shown = ShownConfig::of(&config);
                Config::Whole(Arc::new(WholeConfig { text: content.into(), shown }))
            }
            Err(error) => Config::Broken(error.report().into()),
        }
    }

    fn shown(&self) -> Option<&ShownConfig> {
        match self {
            Config::Whole(config) => Some(&config.shown),
            Config::Missing | Config::Broken(_) => None,
        }
    }
}

impl WholeConfig {
    pub(super) fn parse(&self) -> Result<ImageConfig> {
        ImageConfig::parse(&self.text)
    }
}

/// All images.
#[derive(Debug, Default)]
pub(super) struct Index {
    images: BTreeMap<ImageId, (u64, Arc<Image>)>,
    order: BTreeMap<u64, Arc<Image>>,
    names: HashMap<String, Arc<Image>>,
    digests: HashMap<String, Vec<ImageId>>,
    /// How many images have this top layer.
    tops: HashMap<String, usize>,
    next: u64,
    /// How many images have been taken out.
    removals: u64,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.images.len()
    }

    /// All images in order.
    pub(super) fn list(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.order.values()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Image>> {
        self.images.get(id).map(|(_, image)| image)
    }

    /// Whether it is the top layer of an image.
    pub(super) fn is_top_layer(&self, layer: &str) -> bool {
        self.tops.contains_key(layer)
    }

    /// How many images have been taken out.
    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    /// Goes on counting where the index did whose place this one takes.
    pub(super) fn follow(&mut self, before: &Index) {
        self.removals = before.removals + 1;
    }

    /// The image that has this name.
    pub(super) fn holder(&self, name: &str) -> Option<&Arc<Image>> {
        self.names.get(name)
    }

    /// Images with this digest, in order.
    pub(super) fn with_digest(&self, digest: &str) -> impl Iterator<Item = &Arc<Image>> {
        self.digests.get(digest).into_iter().flatten().filter_map(|id| self.get(id.as_str()))
    }

    /// An empty index with room for this many images.
    pub(super) fn with_capacity(images: usize) -> Index {
        Index {
            names: HashMap::with_capacity(images),
            digests: HashMap::with_capacity(images),
            tops: HashMap::with_capacity(images),
            ..Index::default()
        }
    }

    /// Adds an image at the end, or takes the place of the one with its id. Names it has belong to it from now on:
    /// another holder must be put without them.
    pub(super) fn put(&mut self, image: Image) {
        let image = Arc::new(image);
        let (sequence, old) = match self.images.get(image.id.as_str()) {
            Some((sequence, old)) => (*sequence, Some(Arc::clone(old))),
            None => {
                self.next += 1;
                (self.next, None)
            }
        };
        if let Some(old) = old {
            self.forget_names(&old);
            self.forget_digests(&old, |digest| !image.digests().any(|kept| kept == digest));
            self.forget_top(&old);
        }
        self.note(&image);
        self.order.insert(sequence, Arc::clone(&image));
        self.images.insert(image.id.clone(), (sequence, image));
    }

    /// Adds images of different ids to an index without images, in this order; each is made from what those before it
    /// have. Faster than to put one after the other, for the trees are built at once.
    pub(super) fn fill<T>(&mut self, from: Vec<T>, mut make: impl FnMut(&Index, T) -> Image) {
        let mut images = Vec::with_capacity(from.len());
        for one in from {
            let image = Arc::new(make(self, one));
            self.note(&image);
            self.next += 1;
            images.push((image.id.clone(), (self.next, image)));
        }
        self.order = images.iter().map(|(_, (sequence, image))| (*sequence, Arc::clone(image))).collect();
        self.images = images.into_iter().collect();
    }

    /// Makes an image found by its names and digests.
    fn note(&mut self, image: &Arc<Image>) {
        if let Some(top) = &image.record.layer {
            *self.tops.entry(top.clone()).or_insert(0) += 1;
        }
        for name in &image.record.names {
            self.names.insert(name.clone(), Arc::clone(image));
        }
        for digest in image.digests() {
            let images = self.digests.entry(digest.to_owned()).or_insert_with(|| Vec::with_capacity(1));
            if !images.contains(&image.id) {
                images.push(image.id.clone());
            }
        }
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some((sequence, image)) = self.images.remove(id) {
            self.order.remove(&sequence);
            self.forget_names(&image);
            self.forget_digests(&image, |_| true);
            self.forget_top(&image);
            self.removals += 1;
        }
    }

    fn forget_top(&mut self, image: &Image) {
        let Some(top) = &image.record.layer else { return };
        if let Some(count) = self.tops.get_mut(top) {
            *count -= 1;
            if *count == 0 {
                self.tops.remove(top);
            }
        }
    }

    fn forget_names(&mut self, image: &Image) {
        for name in &image.record.names {
            if self.names.get(name).is_some_and(|holder| holder.id == image.id) {
                self.names.remove(name);
            }
        }
    }

    fn forget_digests(&mut self, image: &Image, which: impl Fn(&str) -> bool) {
        for digest in image.digests().filter(|digest| which(digest)) {
            if let Some(images) = self.digests.get_mut(digest) {
                images.retain(|id| *id != image.id);
                if images.is_empty() {
                    self.digests.remove(digest);
                }
            }
        }
    }

    /// The image that `text` means: an id, a name, a unique short id, a digest reference, in this order.
    pub(super) fn resolve(&self, text: &str, default_host: Option<&str>) -> Result<&Arc<Image>> {
        self.meant(text, default_host).map_err(|several| match several {
            Some((one, two)) => ambiguous(text, one, two),
            None => Error::not_found(format!("no such image: {}", shown(text))),
        })
    }

    /// The same; else the images that it may mean, if there are several. Allocates nothing.
    pub(super) fn meant(
        &self,
        text: &str,
        default_host: Option<&str>,
    ) -> Result<&Arc<Image>, Option<(&Image, &Image)>> {
        // A text of the length of an id is one, or the name of an image, or a short id that is whole.
        if let Some(image) = self.get(text).or_else(|| self.holder(text)) {
            return Ok(image);
        }
        let mut fitting = self.starting_with(text);
        match (fitting.next(), fitting.next()) {
            (Some(image), None) => return Ok(image),
            (Some(one), Some(two)) => return Err(Some((one, two))),
            (None, _) => {}
        }
        let digest = reference::digest_position(text).and_then(|at| text.get(at + 1..));
        let mut meant =
            digest.iter().flat_map(|digest| self.with_digest(digest).map(move |image| (image, digest)));
        meant
            .find(|(image, digest)| image.is_meant_by(text, digest, default_host))
            .map(|(image, _)| image)
            .ok_or(None)
    }

    /// Images whose id starts with `text`, if that is a short id.
    fn starting_with<'a, 'b>(&'a self, text: &'b str) -> impl Iterator<Item = &'a Arc<Image>> + use<'a, 'b> {
        // What is no short id is not looked for.
        let range = id::is_short(text).then_some((Bound::Included(text), Bound::Unbounded));
        let fitting = range.into_iter().flat_map(|range| self.images.range::<str, _>(range));
        let fitting = fitting.take_while(move |(id, _)| id.as_str().starts_with(text));
        fitting.map(|(_, (_, image))| image)
    }
}

fn ambiguous(text: &str, one: &Image, two: &Image) -> Error {
    let message = format!("no such image: short id {text} is ambiguous, it fits {} and {}", one.id, two.id);
    Error::new(ErrorKind::NotFound, message)
}

/// A name as it may stand in a message.
fn shown(text: &str) -> &str {
    text.char_indices().nth(200).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: Option<&str> = Some("docker.io");

    fn image(id: &str, names: &[&str], digest: Option<&str>, manifest: Option<&str>) -> Image {
        let record = ImageRecord {
            id: Some(id.to_owned()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            digest: digest.map(str::to_owned),
            big_data_digests: manifest.map(|digest| vec![("manifest".to_owned(), digest.to_owned())]),
            ..ImageRecord::default()
        };
        Image::new(ImageId::new(id).unwrap(), record, Config::Missing, HUB)
    }

    fn id(fill: &str) -> String {
        fill.repeat(64).chars().take(64).collect()
    }

    fn index(images: Vec<Image>) -> Index {
        let mut index = Index::default();
        images.iter().cloned().for_each(|image| index.put(image));
        let mut filled = Index::with_capacity(images.len());
        filled.fill(images, |_, image| image);
        assert_eq!(format!("{:?}", filled.order), format!("{:?}", index.order));
        assert_eq!(format!("{:?}", filled.images), format!("{:?}", index.images));
        filled
    }

    fn found(index: &Index, text: &str) -> Option<String> {
        index.resolve(text, HUB).ok().map(|image| image.id.to_string())
    }

    #[test]
    fn lookup_goes_by_id_then_name_then_short_id_then_digest() {
        let (a, b) = (id("a1"), id("b2"));
        let digest = format!("sha256:{}", id("d4"));
        // The second image has the first one's id as its name, and a name that is a short id of the first.
        let index = index(vec![
            image(&a, &["one:latest"], Some(&digest), None),
            image(&b, &[&a, "a1a1", "h:5000/two:1"], None, Some(&digest)),
        ]);
        assert_eq!(found(&index, &a), Some(a.clone()), "an id wins over a name");
        assert_eq!(found(&index, "a1a1"), Some(b.clone()), "a name wins over a short id");
        assert_eq!(found(&index, "a1a"), Some(a.clone()));
        assert_eq!(found(&index, "one:latest"), Some(a.clone()));
        assert_eq!(found(&index, &format!("one@{digest}")), Some(a));
        // Not found by the reference, which looks only at the first image of a digest.
        assert_eq!(found(&index, &format!("h:5000/two@{digest}")), Some(b));
        for nothing in [
            "",
            "one",
            "a1",
            "A1A",
            "a1b",
            "zzz",
            "one:1",
            &format!("two@{digest}"),
            &digest,
            "one@sha256:d4",
        ] {
            assert_eq!(found(&index, nothing), None, "{nothing:?}");
        }
        let trailing = format!("one@{digest}x");
        assert_eq!(found(&index, &trailing), None, "the whole text must fit");
    }

    #[test]
    fn a_short_id_has_three_digits_at_least_and_is_unique() {
        let alone = index(vec![image(&id("abc"), &[], None, None)]);
        for short in ["", "a", "ab", "ABC"] {
            assert_eq!(found(&alone, short), None, "{short:?}");
        }
        assert!(found(&alone, "abc").is_some());

        let two = index(vec![image(&id("abcd"), &[], None, None), image(&id("abce"), &[], None, None)]);
        assert!(found(&two, "abcd").is_some());
        let error = two.resolve("abc", HUB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.report().contains("short id abc is ambiguous"), "{}", error.report());
    }

    #[test]
    fn names_and_digests_follow_the_image() {
        let (a, b) = (id("a"), id("b"));
        let mut index = index(vec![image(&a, &["x:1", "y:1"], Some("sha256:1"), Some("sha256:2"))]);
        index.put(image(&b, &[], None, Some("sha256:2")));
        let ids = |index: &Index, digest: &str| {
            index.with_digest(digest).map(|i| i.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&index, "sha256:1"), [a.as_str()]);
        assert_eq!(ids(&index, "sha256:2"), [a.clone(), b.clone()]);

        index.put(image(&a, &["x:1"], Some("sha256:1"), Some("sha256:3")));
        index.put(image(&b, &["y:1"], None, Some("sha256:2")));
        assert_eq!(found(&index, "y:1"), Some(b.clone()));
        assert_eq!(ids(&index, "sha256:2"), [b.as_str()]);
        assert_eq!(ids(&index, "sha256:3"), [a.as_str()]);
        assert_eq!(
            index.list().map(|image| image.id.to_string()).collect::<Vec<_>>(),
            [a.clone(), b.clone()]
        );

        index.remove(&a);
        assert_eq!(found(&index, "x:1"), None);
        assert!(ids(&index, "sha256:1").is_empty() && ids(&index, "sha256:3").is_empty());
        assert_eq!(index.len(), 1);
        index.remove(&a);
        assert_eq!((index.len(), index.names.len(), index.digests.len(), index.order.len()), (1, 1, 1, 1));
    }

    #[test]
    fn a_name_taken_over_is_not_lost_when_its_old_holder_goes() {
        let (a, b) = (id("a"), id("b"));
        let mut index = index(vec![image(&a, &["x:1"], None, None)]);
        index.put(image(&b, &["x:1"], None, None));
        index.remove(&a);
        assert_eq!(found(&index, "x:1"), Some(b));
    }
}
