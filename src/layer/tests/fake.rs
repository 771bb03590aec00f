// SPDX-License-Identifier: MulanPSL-2.0
//! A graph driver that keeps its layers as two small files each, fails on demand, and tells what it is asked.
//!
//! A layer is `<home>/<id>/{content,parent,link}`. An archive is taken as it is; one that starts with `GZ:` stands for
//! a compressed one, the rest of it being the plain archive. `link` stands for what overlay can lose and derive: a
//! mount needs that of each layer below.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::Digest;
use crate::driver::{
    Applied, Compression, Depth, DriverOptions, DriverStatus, GraphDriver, LayerKind, Limits, Metadata,
    NewLayer, Prepared, Removed, Verdict,
};
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::{Ownership, Quarantined, StateDir};
use crate::sys::fs::Dir;
use crate::units::{Bytes, Inodes, Usage};

const STATE: &str = ".isula-storage";

type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// When an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Before it has done anything.
    Before(ErrorKind),
    /// After it has done everything.
    After(ErrorKind),
}

/// What outlives a store: the kernel's mounts, and what the test wants to happen.
#[derive(Default)]
pub(super) struct World {
    pub(super) mounted: Mutex<HashSet<LayerId>>,
    /// Layers whose mounts do not go away.
    pub(super) busy: Mutex<HashSet<LayerId>>,
    /// Next call of an operation fails.
    pub(super) faults: Mutex<HashMap<&'static str, Fault>>,
    /// Operations in order, `create 0001`.
    pub(super) trace: Mutex<Vec<String>>,
    /// Called at the start of each operation.
    pub(super) hook: Mutex<Option<Hook>>,
    /// How layers were mounted.
    pub(super) kinds: Mutex<HashMap<LayerId, LayerKind>>,
}

impl World {
    pub(super) fn fail(&self, operation: &'static str, fault: Fault) {
        self.faults.lock().insert(operation, fault);
    }

    /// Operations since the last call.
    pub(super) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.trace.lock())
    }

    fn perform<T>(
        &self,
        operation: &'static str,
        id: &LayerId,
        action: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            hook(operation);
        }
        self.trace.lock().push(format!("{operation} {}", id.as_str().trim_start_matches('0')));
        let fault = self.faults.lock().remove(operation);
        let error = |kind| Err(Error::new(kind, format!("{operation} was told to fail")));
        match fault {
            Some(Fault::Before(kind)) => error(kind),
            Some(Fault::After(kind)) => action().and_then(|_| error(kind)),
            None => action(),
        }
    }
}

pub(super) struct FakeDriver {
    home: Dir,
    /// `None` after `clean_up`, and when read-only and absent.
    state: Mutex<Option<Arc<StateDir>>>,
    world: Arc<World>,
}

impl FakeDriver {
    pub(super) fn open(options: &DriverOptions, world: Arc<World>) -> Result<Arc<dyn GraphDriver>> {
        let home = options.root.join("vfs");
        let (home, ownership) = match options.read_only {
            true => (Dir::open(&home)?, Ownership::ReadOnly),
            false => (Dir::create_all(&home, 0o700)?, Ownership::Owner),
        };
        let state = match home.stat(STATE)? {
            None if options.read_only => None,
            _ => Some(StateDir::open(&home, STATE, ownership, options.durability)?),
        };
        if let Some(state) = &state {
            state.sweep_trash();
        }
        Ok(Arc::new(FakeDriver { home, state: Mutex::new(state.map(Arc::new)), world }))
    }

    fn state(&self) -> Result<Arc<StateDir>> {
        self.state.lock().clone().ok_or_else(|| Error::new(ErrorKind::NotReady, "closed or read-only"))
    }

    fn path(&self, id: &LayerId, name: &str) -> PathBuf {
        self.home.path().join(id).join(name)
    }

    fn write(path: &Path, content: &[u8]) -> Result<()> {
        let file = std::fs::File::create(path).and_then(|mut file| file.write_all(content));
        file.during(|| format!("write {}", path.display()))
    }

    fn content(&self, id: &LayerId) -> Result<Vec<u8>> {
        std::fs::read(self.path(id, "content")).during(|| format!("layer {id}"))
    }

    fn parent(&self, id: &LayerId) -> Result<Option<LayerId>> {
        let text = std::fs::read_to_string(self.path(id, "parent")).during(|| format!("layer {id}"))?;
        if text.is_empty() { Ok(None) } else { LayerId::new(&text).map(Some) }
    }

    fn require_links(&self, id: &LayerId) -> Result<()> {
        let mut next = Some(id.clone());
        while let Some(id) = next {
            if !self.path(&id, "link").exists() {
                return Err(Error::not_found(format!("link of layer {id}")));
            }
            next = self.parent(&id)?;
        }
        Ok(())
    }
}

struct FakeAside {
    home: Dir,
    state: Arc<StateDir>,
    world: Arc<World>,
    id: LayerId,
    aside: String,
}

impl Prepared for FakeAside {
    fn install(self: Box<Self>, reason: &str) -> Result<Option<Quarantined>> {
        self.world.perform("install", &self.id, || {
            let old = match self.home.stat(self.id.as_str())? {
                Some(_) => Some(self.state.quarantine(&self.home, self.id.as_str(), reason)?),
                None => None,
            };
            self.home.rename_new(&self.aside, &self.home, self.id.as_str())?;
            Ok(old)
        })
    }
}

impl Drop for FakeAside {
    fn drop(&mut self) {
        self.home.remove_all(&self.aside).unwrap();
    }
}

impl GraphDriver for FakeDriver {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        self.world.perform("create", layer.id, || {
            if let Some(parent) = layer.parent
                && !self.home.path().join(parent).is_dir()
            {
                return Err(Error::not_found(format!("parent {parent}")));
            }
            if self.home.stat(layer.id.as_str())?.is_some() {
                self.state()?.quarantine(&self.home, layer.id.as_str(), "left over")?;
            }
            self.home.create_dir(layer.id.as_str(), 0o700)?;
            FakeDriver::write(&self.path(layer.id, "content"), b"")?;
            FakeDriver::write(&self.path(layer.id, "link"), b"")?;
            let parent = layer.parent.map_or("", LayerId::as_str);
            FakeDriver::write(&self.path(layer.id, "parent"), parent.as_bytes())
        })
    }

    fn apply(
        &self,
        id: &LayerId,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        _limits: &Limits,
    ) -> Result<Applied> {
        self.world.perform("apply", id, || {
            let mut stream = Vec::new();
            source.read_to_end(&mut stream).during(|| "read the archive")?;
            let plain = stream.strip_prefix(b"GZ:").unwrap_or(&stream);
            FakeDriver::write(&self.path(id, "content"), plain)?;
            write!(tar_split, "{}", Digest::of(plain)).during(|| "write tar-split")?;
            let size = |bytes: &[u8]| Bytes(bytes.len() as u64);
            Ok(Applied {
                diff_id: Digest::of(plain),
                compressed_digest: Digest::of(&stream),
                compressed_size: size(&stream),
                tar_size: size(plain),
                content_size: size(plain),
                entries: 1,
                compression: if plain.len() == stream.len() { Compression::None } else { Compression::Gzip },
            })
        })
    }

    fn prepare(
        &self,
        layer: &NewLayer<'_>,
        source: &mut dyn Read,
        tar_split: &mut (dyn Write + Send),
        limits: &Limits,
    ) -> Result<(Applied, Box<dyn Prepared>)> {
        self.world.perform("prepare", layer.id, || {
            let aside = LayerId::new(&format!("aside-{}", layer.id))?;
            // A real driver empties its staging directory when it is opened.
            self.home.remove_all(aside.as_str())?;
            self.home.create_dir(aside.as_str(), 0o700)?;
            let applied = self.apply(&aside, source, tar_split, limits);
            FakeDriver::write(&self.path(&aside, "link"), b"")?;
            let parent = layer.parent.map_or("", LayerId::as_str);
            FakeDriver::write(&self.path(&aside, "parent"), parent.as_bytes())?;
            let prepared = FakeAside {
                home: self.home.try_clone()?,
                state: self.state()?,
                world: self.world.clone(),
                id: layer.id.clone(),
                aside: aside.to_string(),
            };
            Ok((applied?, Box::new(prepared) as Box<dyn Prepared>))
        })
    }

    fn creates_ahead(&self) -> bool {
        true
    }

    fn settle(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.world.perform("settle", id, || match parent {
            Some(parent) if self.content(parent)?.is_empty() => Err(Error::corrupt("the parent is empty")),
            _ => Ok(()),
        })
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        self.world.perform("sync", id, || Ok(()))
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.world.perform("remove", id, || {
            if self.world.mounted.lock().contains(id) {
                return Err(Error::new(ErrorKind::InUse, "mounted"));
            }
            Ok(Removed::of(self.state()?.discard(&self.home, id.as_str())?))
        })
    }

    fn quarantine(&self, id: &LayerId, reason: &str) -> Result<Option<Quarantined>> {
        self.world.perform("quarantine", id, || match self.home.stat(id.as_str())? {
            None => Ok(None),
            Some(_) => self.state()?.quarantine(&self.home, id.as_str(), reason).map(Some),
        })
    }

    fn restore(&self, entry: &Quarantined) -> Result<()> {
        self.state()?.restore(entry, &self.home)
    }

    fn mount(&self, id: &LayerId, kind: LayerKind, _mount_label: Option<&str>) -> Result<PathBuf> {
        self.world.perform("mount", id, || {
            self.require_links(id)?;
            self.world.mounted.lock().insert(id.clone());
            self.world.kinds.lock().insert(id.clone(), kind);
            Ok(self.mount_path(id))
        })
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        self.world.perform("unmount", id, || {
            if !self.world.busy.lock().contains(id) {
                self.world.mounted.lock().remove(id);
            }
            Ok(())
        })
    }

    fn is_mounted(&self, id: &LayerId) -> Result<bool> {
        Ok(self.world.mounted.lock().contains(id))
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        if !self.home.path().join(id).is_dir() {
            return Ok(false);
        }
        FakeDriver::write(&self.path(id, "link"), b"")?;
        Ok(true)
    }

    fn validate(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.world.perform("validate", id, || {
            if !self.exists(id)? {
                return Err(Error::not_found(format!("layer {id}")));
            }
            if self.parent(id)?.as_ref() != parent {
                return Err(Error::corrupt(format!("layer {id}: it stands on another layer")));
            }
            Ok(())
        })
    }

    fn repair_lowers(&self, id: &LayerId, _parent: Option<&LayerId>) -> Result<()> {
        self.world.perform("repair", id, || Ok(()))
    }

    fn metadata(&self, id: &LayerId) -> Result<Metadata> {
        self.require_links(id)?;
        Ok(vec![("MergedDir", self.mount_path(id).display().to_string())])
    }

    fn mount_path(&self, id: &LayerId) -> PathBuf {
        self.path(id, "merged")
    }

    fn usage(&self, id: &LayerId) -> Result<Option<(PathBuf, Usage)>> {
        match std::fs::metadata(self.path(id, "content")) {
            Ok(file) => {
                let usage = Usage { bytes: Bytes(file.len()), inodes: Inodes(1) };
                Ok(Some((self.path(id, "content"), usage)))
            }
            Err(_) => Ok(None),
        }
    }

    fn export(
        &self,
        id: &LayerId,
        _tar_split: &mut dyn Read,
        out: &mut dyn Write,
    ) -> Result<(Digest, Bytes)> {
        let content = self.content(id)?;
        out.write_all(&content).during(|| "write")?;
        Ok((Digest::of(&content), Bytes(content.len() as u64)))
    }

    fn verify(&self, id: &LayerId, tar_split: &mut dyn Read, _depth: Depth) -> Result<Verdict> {
        let mut expected = String::new();
        tar_split.read_to_string(&mut expected).during(|| "read tar-split")?;
        match Digest::of(&self.content(id)?).to_string() == expected {
            true => Ok(Verdict::Valid),
            false => Ok(Verdict::Differs("content".to_owned())),
        }
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        if let Some(Fault::Before(kind) | Fault::After(kind)) = self.world.faults.lock().remove("layers") {
            return Err(Error::new(kind, "layers was told to fail"));
        }
        let entries = self.home.entries()?;
        let names = entries.iter().filter_map(|entry| entry.name.to_str());
        Ok(names.filter_map(|name| LayerId::new(name).ok()).collect())
    }

    fn lowers(&self, _id: &LayerId) -> Result<Vec<LayerId>> {
        Ok(Vec::new())
    }

    fn purge(&self, entry: &Quarantined) -> Result<Removed> {
        Ok(Removed::of(self.state()?.purge(entry)?))
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.state.lock().as_ref().map_or_else(|| Ok(Vec::new()), |state| state.quarantined())
    }

    fn status(&self) -> Result<DriverStatus> {
        Ok(DriverStatus { driver_name: "fake".into(), backing_fs: "none".into(), status: String::new() })
    }

    fn clean_up(&self) -> Result<()> {
        self.world.trace.lock().push("clean up".to_owned());
        *self.state.lock() = None;
        Ok(())
    }
}
