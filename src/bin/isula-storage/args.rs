// SPDX-License-Identifier: MulanPSL-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

const EXIT_CODES: &str = "\
Exit status:
  0    done
  1    failed; the message says why
  2    the command line is wrong
  3    the image, layer, file or store does not exist
  4    in use: by another process, a container, other layers; or it exists already
  5    the archive is damaged, not an image, or beyond a limit
  6    something in the store is damaged
  130  interrupted; what had been begun was taken back";

/// Keeps images and layers for container engines; reads and writes the stores of iSulad.
#[derive(Debug, Parser)]
#[command(name = "isula-storage", version, after_help = EXIT_CODES, propagate_version = false)]
pub(crate) struct Args {
    /// Directory of the store.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/isulad/storage")]
    pub(crate) root: PathBuf,

    /// Directory of what is lost at reboot, such as mount counts.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/run/isulad/storage")]
    pub(crate) run_root: PathBuf,

    /// Graph driver: overlay, overlay2, devicemapper or vfs.
    #[arg(long, global = true, value_name = "NAME", default_value = "overlay")]
    pub(crate) driver: String,

    /// Option of the driver, as in the daemon's storage-opts, or a limit for each layer: layer.max_entries=N,
    /// layer.max_size=SIZE, layer.max_ratio=N.
    #[arg(long = "storage-opt", global = true, value_name = "KEY=VALUE")]
    pub(crate) storage_opts: Vec<String>,

    /// Registry host that is left out of image names; "" keeps names as they are.
    #[arg(long, global = true, value_name = "HOST", default_value = "docker.io")]
    pub(crate) default_host: String,

    /// Print JSON: results on standard output, errors on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print ids only, and no progress or warnings.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Import the images of a docker archive, an OCI archive or an OCI layout.
    Import {
        /// Archive, plain or compressed; a layout directory; "-" for standard input.
        #[arg(value_name = "FILE|DIR|-")]
        source: PathBuf,
        /// Name the image so, instead of as the archive says. May be repeated.
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// Compare layers that are there with what they were made from, and make damaged ones again.
        #[arg(long)]
        heal: bool,
        /// Which of an image for several platforms, such as linux/arm64.
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<String>,
    },
    /// List images.
    #[command(visible_alias = "ls")]
    Images {
        /// Print ids in full.
        #[arg(long)]
        no_trunc: bool,
    },
    /// List layers.
    Layers {
        /// Print ids in full.
        #[arg(long)]
        no_trunc: bool,
    },
    /// Print all that is known of an image or a layer, as JSON.
    Inspect {
        /// Image name or id, or layer id.
        #[arg(value_name = "IMAGE|LAYER")]
        name: String,
    },
    /// Mount a layer, or the top layer of an image, and print where.
    Mount {
        /// Layer id, or image name or id.
        #[arg(value_name = "LAYER|IMAGE")]
        name: String,
    },
    /// Unmount a layer, or the top layer of an image.
    #[command(visible_alias = "unmount")]
    Umount {
        /// Layer id, or image name or id.
        #[arg(value_name = "LAYER|IMAGE")]
        name: String,
        /// However often it is mounted.
        #[arg(short, long)]
        force: bool,
    },
    /// Remove names; with the last name, or by id, the image and the layers that nothing else uses.
    Rmi {
        /// Image names or ids.
        #[arg(value_name = "IMAGE", required = true)]
        names: Vec<String>,
    },
    /// Write the exact tar of a layer, verified against its digest.
    Export {
        /// Layer id.
        #[arg(value_name = "LAYER")]
        layer: String,
        /// File to write; "-" for standard output.
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        output: PathBuf,
    },
    /// List what a layer or a container changes of what it stands on, or write it as a new layer archive.
    ///
    /// Each line is A (added), C (changed) or D (deleted) and a path; bytes that are no text show as escapes.
    Diff {
        /// Layer id, or container id or name.
        #[arg(value_name = "LAYER|CONTAINER")]
        layer: String,
        /// Compare with this layer or container instead of what it stands on.
        #[arg(value_name = "PARENT")]
        parent: Option<String>,
        /// Write a layer archive instead of a list.
        #[arg(long)]
        tar: bool,
        /// File to write the archive to; "-" for standard output.
        #[arg(short, long, value_name = "FILE", default_value = "-", requires = "tar")]
        output: PathBuf,
    },
    /// Make an image of a container: its image with what it changed as one more layer.
    Commit {
        /// Container id or name.
        #[arg(value_name = "CONTAINER")]
        container: String,
        /// Name of the new image.
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Who made it.
        #[arg(short, long, value_name = "WHO")]
        author: Option<String>,
        /// What for.
        #[arg(short, long, value_name = "TEXT")]
        message: Option<String>,
        /// Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL or EXPOSE. May be repeated.
        #[arg(short, long = "change", value_name = "INSTRUCTION")]
        changes: Vec<String>,
        /// Know the new layer by the digest of its archive compressed by gzip.
        #[arg(long)]
        gzip: bool,
    },
    /// Print the driver, what is stored, and what is wrong.
    Status,
    /// Look for damage, and change nothing. Works beside a running daemon.
    Check {
        /// Compare the content of all image layers with what they were made from.
        #[arg(long)]
        deep: bool,
    },
    /// Put right what can be derived from what is there, and list the rest.
    Repair {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Also remove image layers that nothing uses: no image, container, layer or mount, nor anything in quarantine.
        #[arg(long)]
        remove_orphans: bool,
        /// With --remove-orphans: also where there is no image at all. Without it that is refused, for the images may only
        /// be missing.
        #[arg(long, requires = "remove_orphans")]
        even_without_images: bool,
    },
    /// What was put aside because it was damaged: list it, take it back, give it up.
    Quarantine {
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Look into the image store of a Docker daemon, and change nothing. Let no daemon run on it meanwhile.
    Docker {
        #[command(subcommand)]
        command: DockerCommand,
    },
    /// Look into files of containerd's image metadata.
    Containerd {
        #[command(subcommand)]
        command: ContainerdCommand,
    },
    /// Print the completion script of a shell.
    #[command(hide = true)]
    Completion {
        /// Which shell.
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        dir: PathBuf,
    },
}

impl Command {
    /// Whether what is wrong is what it prints: then nobody needs to be warned of it as well.
    pub(crate) fn tells_problems(&self) -> bool {
        matches!(
            self,
            Command::Status | Command::Check { .. } | Command::Repair { .. } | Command::Quarantine { .. }
        )
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List what was put aside, where it lies, and why.
    #[command(visible_alias = "ls")]
    List,
    /// Put something back where it was. Mend it first if it is damaged itself.
    Restore {
        /// Its key or name, or how that begins. A name means the record and the data of a layer.
        #[arg(value_name = "KEY|NAME")]
        what: String,
    },
    /// Delete something for good.
    Purge {
        /// Its key or name, or how that begins. A name means the record and the data of a layer.
        #[arg(value_name = "KEY|NAME")]
        what: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DockerCommand {
    /// List all images.
    #[command(visible_alias = "ls")]
    Images {
        /// Directory above imagedb, such as /var/lib/docker/image/overlay2, or the daemon's data directory.
        #[arg(value_name = "ROOT")]
        root: PathBuf,
        /// Print ids in full.
        #[arg(long)]
        no_trunc: bool,
    },
    /// Print the whole id of the image whose id begins so.
    Search {
        /// Directory above imagedb, such as /var/lib/docker/image/overlay2, or the daemon's data directory.
        #[arg(value_name = "ROOT")]
        root: PathBuf,
        /// First digits of an id, with or without "sha256:".
        #[arg(value_name = "TERM")]
        term: String,
    },
    /// List all images, each below the one that it was made from.
    Tree {
        /// Directory above imagedb, such as /var/lib/docker/image/overlay2, or the daemon's data directory.
        #[arg(value_name = "ROOT")]
        root: PathBuf,
        /// Print ids in full.
        #[arg(long)]
        no_trunc: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerdCommand {
    /// List the images of a file: the meta.db of a containerd that does not run, or a file of the library.
    #[command(visible_alias = "ls")]
    Images {
        /// The file; it is only read.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only this namespace.
        #[arg(short, long, value_name = "NAME")]
        namespace: Option<String>,
        /// Only images with name==N, name^=PREFIX, digest==D, labels.KEY==VALUE, and other conditions; several with
        /// commas. May be repeated: then those that one of them chooses.
        #[arg(short, long = "filter", value_name = "FILTER")]
        filters: Vec<String>,
    },
}
