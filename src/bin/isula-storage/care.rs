// SPDX-License-Identifier: MulanPSL-2.0
//! check, repair, quarantine: asking the library, and printing.

use isula_storage::error::{Error, ErrorKind};
use isula_storage::id::LayerId;
use isula_storage::storage::{CheckReport, Finding, PutAside, RepairReport, Storage, WithoutImages};
use serde_json::{Value, json};

use crate::args::{Args, QuarantineCommand};
use crate::failure::Failure;
use crate::print;

/// Digits of a key that people see.
const SHORT_KEY: usize = 12;

pub(crate) fn check(storage: &Storage, args: &Args, deep: bool) -> Result<(), Failure> {
    let report = storage.check(deep)?;
    if args.json {
        print::json(&check_json(&report, deep))?;
    } else if args.quiet {
        print::lines(report.findings.iter().map(|finding| finding.subject.clone()))?;
    } else {
        let compared = match deep {
            true => format!("content of {} compared", report.compared),
            false => "content not compared: --deep does".to_owned(),
        };
        let counts = format!(
            "checked {} images, {} layers ({compared}), {} containers",
            report.images, report.layers, report.containers
        );
        print::lines(
            std::iter::once(counts)
                .chain(lines_of(&report.findings))
                .chain(
                    report.not_looked_for.iter().map(|what| format!("not looked for: {what} (repair does)")),
                )
                .chain(aside(report.quarantined)),
        )?;
    }
    damaged(report.findings.len())
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repair {
    /// Only say.
    pub(crate) dry_run: bool,
    /// Remove image layers that nothing uses.
    pub(crate) orphans: bool,
    /// Also where there is no image at all.
    pub(crate) without_images: WithoutImages,
}

pub(crate) fn repair(storage: &Storage, args: &Args, asked: Repair) -> Result<(), Failure> {
    let dry_run = asked.dry_run;
    // First of all what can be mended: it may need them.
    let mut report = storage.repair(dry_run)?;
    let removed = match asked.orphans {
        true if dry_run => storage.orphans_with(asked.without_images).map_err(no_orphans)?,
        true => storage.remove_orphans_with(asked.without_images).map_err(no_orphans)?,
        false => Vec::new(),
    };
    report.left.retain(|finding| !removed.iter().any(|id| finding.subject == format!("layer {id}")));
    if args.json {
        print::json(&repair_json(&report, &removed, dry_run))?;
    } else if args.quiet {
        print::lines(report.left.iter().map(|finding| finding.subject.clone()))?;
    } else {
        let done = if dry_run { "would mend" } else { "mended" };
        let mended =
            report.mended.iter().map(|finding| format!("{done} {}: {}", finding.subject, finding.reason));
        let nothing = report.mended.is_empty().then(|| "nothing to mend".to_owned());
        let done = if dry_run { "would remove" } else { "removed" };
        let removed = removed.iter().map(|id| format!("{done} layer {id}: nothing uses it"));
        print::lines(nothing.into_iter().chain(mended).chain(removed).chain(lines_of(&report.left)))?;
    }
    damaged(report.left.len())
}

fn no_orphans(error: Error) -> Failure {
    let hint = match error.report().contains("no image at all") {
        true => "Or remove them with --even-without-images, if the images are gone for good.",
        false => "isula-storage check and quarantine list tell of it.",
    };
    Failure::from(error).or_try(ErrorKind::Corrupt, hint)
}

fn damaged(count: usize) -> Result<(), Failure> {
    match count {
        0 => Ok(()),
        1 => Err(Failure::damaged("1 thing in the store is damaged")),
        _ => Err(Failure::damaged(format!("{count} things in the store are damaged"))),
    }
}

fn lines_of(findings: &[Finding]) -> impl Iterator<Item = String> {
    findings.iter().map(|finding| {
        let note = match (finding.quarantined, finding.derivable) {
            (true, _) => " (put aside)",
            (false, true) => " (repair mends it)",
            (false, false) => "",
        };
        format!("{}: {}{note}", finding.subject, finding.reason)
    })
}

fn aside(count: usize) -> Option<String> {
    (count > 0).then(|| format!("{count} things lie in quarantine: isula-storage quarantine list"))
}

fn check_json(report: &CheckReport, deep: bool) -> Value {
    json!({
        "deep": deep,
        "images": report.images,
        "layers": report.layers,
        "compared": report.compared,
        "containers": report.containers,
        "quarantined": report.quarantined,
        "findings": findings_json(&report.findings),
        "not_looked_for": report.not_looked_for,
    })
}

fn repair_json(report: &RepairReport, removed: &[LayerId], dry_run: bool) -> Value {
    json!({
        "dry_run": dry_run,
        "mended": findings_json(&report.mended),
        "removed": removed.iter().map(LayerId::as_str).collect::<Vec<_>>(),
        "left": findings_json(&report.left),
    })
}

fn findings_json(findings: &[Finding]) -> Value {
    let findings = findings.iter().map(|finding| {
        json!({
            "subject": finding.subject,
            "reason": finding.reason,
            "derivable": finding.derivable,
            "quarantined": finding.quarantined,
        })
    });
    findings.collect()
}

pub(crate) fn quarantine(storage: &Storage, args: &Args, command: &QuarantineCommand) -> Result<(), Failure> {
    match command {
        QuarantineCommand::List => list(storage, args),
        QuarantineCommand::Restore { what } => tell(args, "restored", &storage.restore(what)?),
        QuarantineCommand::Purge { what } => tell(args, "purged", &storage.purge(what)?),
    }
}

fn list(storage: &Storage, args: &Args) -> Result<(), Failure> {
    let all = storage.put_aside()?;
    if args.json {
        return Ok(print::json(&all.iter().map(put_aside_json).collect())?);
    }
    if args.quiet {
        return Ok(print::lines(all.iter().map(|put| put.entry.key.clone()))?);
    }
    let lines = all.iter().flat_map(|PutAside { kind, entry }| {
        let key = entry.key.get(..SHORT_KEY).unwrap_or(&entry.key);
        [
            format!("{key}  {kind} {}", entry.name),
            format!("  when  {}", entry.time),
            format!("  why   {}", entry.reason),
            format!("  from  {}", entry.from.display()),
            format!("  now   {}", entry.path.display()),
        ]
    });
    Ok(print::lines(lines)?)
}

fn tell(args: &Args, done: &str, all: &[PutAside]) -> Result<(), Failure> {
    if args.json {
        return Ok(print::json(&all.iter().map(put_aside_json).collect())?);
    }
    if args.quiet {
        return Ok(print::lines(all.iter().map(|put| put.entry.key.clone()))?);
    }
    Ok(print::lines(all.iter().map(|put| format!("{done} {} {}", put.kind, put.entry.name)))?)
}

fn put_aside_json(put: &PutAside) -> Value {
    let PutAside { kind, entry } = put;
    json!({
        "key": entry.key,
        "kind": kind.to_string(),
        "name": entry.name,
        "from": entry.from,
        "reason": entry.reason,
        "time": entry.time,
        "path": entry.path,
    })
}
