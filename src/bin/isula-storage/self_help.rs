// SPDX-License-Identifier: MulanPSL-2.0
//! Completion scripts and manual pages, made from the command line's own description.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use isula_storage::error::{During, Result};

use crate::args::Args;

/// Prints a completion script.
pub(crate) fn completion(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "isula-storage", &mut script);
    std::io::stdout().write_all(&script).during(|| "write to standard output")
}

/// Writes one page for the tool and one for each visible command.
pub(crate) fn manual(dir: &Path) -> Result<()> {
    let mut command = Args::command();
    command.build();
    page(dir, command.clone().name("isula-storage"), "isula-storage")?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("isula-storage-{}", sub.get_name());
        page(dir, sub.clone(), &name)?;
    }
    Ok(())
}

fn page(dir: &Path, command: clap::Command, name: &str) -> Result<()> {
    let path = dir.join(format!("{name}.1"));
    let mut text = Vec::new();
    // The page of a command is named like its file.
    let command = command.name(name.to_owned()).bin_name(name.to_owned());
    clap_mangen::Man::new(command).render(&mut text).during(|| format!("make {}", path.display()))?;
    let mut file = File::create(&path).during(|| format!("write {}", path.display()))?;
    file.write_all(&text).during(|| format!("write {}", path.display()))
}
