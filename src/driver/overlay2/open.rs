// SPDX-License-Identifier: MulanPSL-2.0
//! Opening and closing the driver: what the kernel and the file system have to offer, the home's mount, left-overs.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::driver::DriverOptions;
use crate::driver::home::Home;
use crate::driver::options::OverlayOptions;
use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::{Dir, filesystem_name};
use crate::sys::mount::{self, MountMethod};
use crate::sys::node;
use crate::sys::quota::Kernel;

use super::Overlay;
use super::layout::{BACKING_DEVICE, DIFF, EMPTY, LINKS, MERGED, PRIVATE_MODE, WORK};
use super::quota::{NOT_SUPPORTED, Projects};

/// File systems that the reference refuses.
const REFUSED: [&str; 4] = ["aufs", "zfs", "overlayfs", "ecryptfs"];
/// File systems that are known to carry an upper directory; others are tried out.
const KNOWN_GOOD: [&str; 5] = ["extfs", "xfs", "btrfs", "f2fs", "tmpfs"];

/// How the projects of a file system are found, by a directory on it and its name.
pub(super) type FindProjects<'a> = dyn Fn(&Dir, Option<&str>) -> Result<Option<Projects>> + 'a;

/// Asks the kernel.
fn find_projects(home: &Dir, backing_fs: Option<&str>) -> Result<Option<Projects>> {
    if !matches!(backing_fs, Some("extfs" | "xfs")) {
        return Ok(None);
    }
    Projects::detect(home, Arc::new(Kernel::open(home, BACKING_DEVICE)?))
}

impl Overlay {
    pub(super) fn open(path: &Path, driver: &DriverOptions) -> Result<Overlay> {
        Overlay::open_with(path, driver, &find_projects)
    }

    pub(super) fn open_with(
        path: &Path,
        driver: &DriverOptions,
        find_projects: &FindProjects<'_>,
    ) -> Result<Overlay> {
        let options = OverlayOptions::parse(&driver.options)?;
        if driver.read_only {
            return Overlay::open_read_only(path, driver, options, find_projects);
        }
        if !mount::overlay_supported()? {
            return Err(Error::new(ErrorKind::Unsupported, "this kernel has no overlay file system"));
        }
        // Sets the mode of `l` and of what is made, and leaves the mode of an existing home alone.
        drop(Dir::create_all(&path.join(LINKS), PRIVATE_MODE)?);
        let parent = Dir::open(path.parent().unwrap_or(path))?;
        let backing_fs = filesystem_name(parent.as_fd())?;
        if let Some(name) = backing_fs.filter(|name| REFUSED.contains(name)) {
            let what = format!("overlay layers cannot lie on {name} ({}); use ext4 or xfs", path.display());
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let bound = if options.skip_mount_home { None } else { BoundHome::bind(path, &parent)? };

        // Only now: descriptors from before the bind are on the other side of a mount.
        let dir = Dir::open(path)?;
        let device = parent.stat(home_name(path)?)?.map_or(0, |stat| stat.device);
        if matches!(backing_fs, Some("extfs" | "xfs"))
            && let Err(error) = node::ensure_block_device(&dir, BACKING_DEVICE, 0o600, device)
        {
            log::debug!("no {BACKING_DEVICE}: {}", error.report());
        }
        let projects = find_projects(&dir, backing_fs)?;
        if options.default_size.is_some() && !projects.as_ref().is_some_and(Projects::supported) {
            return Err(Error::new(ErrorKind::Unsupported, NOT_SUPPORTED));
        }
        let links = dir.open_dir(LINKS)?;
        let leaving = projects.as_ref().map_or_else(HashSet::new, |projects| projects.on_their_way_out(&dir));
        let home = Home::open(dir, driver.durability, false)?;
        let projects = match projects {
            Some(mut projects) => {
                projects.take_up(&home, &leaving)?;
                Some(Arc::new(projects))
            }
            None => None,
        };
        let overlay = Overlay {
            home,
            links,
            options,
            projects,
            owner_shift: driver.owner_shift,
            backing_fs,
            method: OnceCell::new(),
            kept_links: Mutex::default(),
            remote: None,
            _bound: bound,
        };
        overlay.shift_owner(overlay.home.dir())?;
        overlay.shift_owner(&overlay.links)?;
        match overlay.try_out() {
            // What was found out when there was room still holds, and whoever opens a full store wants to delete.
            Err(error) if error.is_no_space() => log::warn!("try out the file system: {}", error.report()),
            tried => tried?,
        }
        overlay.sweep_links()?;
        Ok(overlay)
    }

    fn open_read_only(
        path: &Path,
        driver: &DriverOptions,
        options: OverlayOptions,
        find_projects: &FindProjects<'_>,
    ) -> Result<Overlay> {
        let dir = Dir::open(path)?;
        let backing_fs = filesystem_name(dir.as_fd())?;
        let mut projects = find_projects(&dir, backing_fs)?;
        let links = match dir.open_dir(LINKS) {
            // It can be made again, but not by who only reads; no short name is found in the home itself.
            Err(error) if error.kind() == ErrorKind::NotFound => dir.try_clone()?,
            opened => opened?,
        };
        let home = Home::open(dir, driver.durability, true)?;
        if let Some(projects) = &mut projects {
            projects.read(home.hidden().ok());
        }
        Ok(Overlay {
            home,
            links,
            options,
            projects: projects.map(Arc::new),
            owner_shift: driver.owner_shift,
            backing_fs,
            method: OnceCell::new(),
            kept_links: Mutex::default(),
            remote: None,
            _bound: None,
        })
    }

    /// Finds out whether the file system can carry layers, where its name alone does not say so.
    fn try_out(&self) -> Result<()> {
        let staged = self.home.stage()?;
        let dir = staged.dir();
        for name in [DIFF, EMPTY, WORK, MERGED] {
            dir.create_dir(name, PRIVATE_MODE)?;
        }
        let place = self.home.dir().path().display();
        if !node::reports_file_types(dir)? {
            let what = format!(
                "the file system of {place} does not tell the types of files in a directory (d_type)"
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        if self.backing_fs.is_some_and(|name| KNOWN_GOOD.contains(&name)) {
            return Ok(());
        }
        let trial = mount::Overlay {
            home: dir,
            lowers: vec![EMPTY.into()],
            upper: Some(DIFF.into()),
            work: Some(WORK.into()),
            options: Vec::new(),
            label: None,
        };
        mount::mount_overlay(&trial, Path::new(MERGED), MountMethod::Auto)
            .map_err(|error| error.with_kind(ErrorKind::Unsupported))
            .during(|| format!("the file system of {place} does not carry overlay layers"))?;
        mount::unmount(&dir.path().join(MERGED)).map(drop)
    }

    /// Gives a directory to the owner of the user namespace, if there is one.
    pub(super) fn shift_owner(&self, dir: &Dir) -> Result<()> {
        match self.owner_shift {
            None => Ok(()),
            Some(shift) => std::os::unix::fs::fchown(dir, Some(shift.uid), Some(shift.gid))
                .during(|| format!("change owner of {}", dir.path().display())),
        }
    }
}

fn home_name(path: &Path) -> Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| Error::invalid(format!("{} names no directory", path.display())))
}

/// The home, bound on itself. Dropping it takes the mount away, unless something is open or mounted below it: the
/// mounts of running containers stay.
#[derive(Debug)]
pub(super) struct BoundHome(PathBuf);

impl BoundHome {
    /// Binds the home on itself unless it is a mount point already. A home that is its own bind mount is ours also if an
    /// earlier process left it; a file system that the operator mounted there is not (`None`).
    fn bind(path: &Path, parent: &Dir) -> Result<Option<BoundHome>> {
        mount::bind_private(path)?;
        let device = |of: &Path| std::fs::metadata(of).map(|metadata| metadata.dev());
        let ours = device(path).during(|| "look at the home")?
            == device(parent.path()).during(|| "look above the home")?;
        Ok(ours.then(|| BoundHome(path.to_owned())))
    }
}

impl Drop for BoundHome {
    fn drop(&mut self) {
        match mount::unmount_idle(&self.0) {
            Ok(true) => {}
            Ok(false) => log::info!("{} stays mounted: it is in use", self.0.display()),
            Err(error) => log::warn!("unmount {}: {}", self.0.display(), error.report()),
        }
    }
}
