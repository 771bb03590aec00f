// SPDX-License-Identifier: MulanPSL-2.0
//! `isula-storage`: looks into and fills a store. Arguments and printing; the work is in the library.

mod archive;
mod args;
mod care;
mod commands;
mod containerd;
mod docker;
mod failure;
mod meter;
mod print;
mod self_help;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let quiet = args.quiet || args.command.tells_problems();
    let json = args.json;
    if log::set_boxed_logger(Box::new(Warnings { quiet: quiet || json })).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    match commands::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(json),
    }
}

/// Puts the library's warnings on standard error.
struct Warnings {
    quiet: bool,
}

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        !self.quiet && metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("isula-storage: {}: {}", record.level().as_str().to_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}
