// SPDX-License-Identifier: MulanPSL-2.0
//! What the user is told when something failed, and the exit status.

use std::process::ExitCode;

use isula_storage::error::{Error, ErrorKind};

/// A failure and what can be done about it.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    hint: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = usual_hint(&error);
        Failure { error, hint }
    }
}

impl Failure {
    /// Something was found damaged. What, was printed already.
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        let hint = "docs/recovery.md tells what to do about it.".to_owned();
        Failure { error: Error::corrupt(message.into()), hint: Some(hint) }
    }

    /// The same with this remedy instead of the usual one.
    pub(crate) fn or_try(mut self, kind: ErrorKind, hint: &str) -> Self {
        if self.error.kind() == kind {
            self.hint = Some(hint.to_owned());
        }
        self
    }

    /// Prints it and gives the exit status.
    pub(crate) fn tell(&self, json: bool) -> ExitCode {
        let (name, code) = class(self.error.kind());
        if json {
            let value = serde_json::json!({
                "error": {
                    "kind": name,
                    "errno": self.error.errno(),
                    "message": self.error.report(),
                    "hint": self.hint,
                }
            });
            eprintln!("{value}");
        } else {
            eprintln!("isula-storage: {}", self.error.report());
            if let Some(hint) = &self.hint {
                eprintln!("  {hint}");
            }
        }
        ExitCode::from(code)
    }
}

/// Name and exit status of a kind of error.
fn class(kind: ErrorKind) -> (&'static str, u8) {
    match kind {
        ErrorKind::InvalidArgument | ErrorKind::NotUtf8 => ("usage", 2),
        ErrorKind::Ambiguous => ("ambiguous", 2),
        ErrorKind::NotFound => ("not-found", 3),
        ErrorKind::InUse | ErrorKind::AlreadyExists => ("in-use", 4),
        ErrorKind::InvalidData | ErrorKind::DigestMismatch | ErrorKind::LimitExceeded => ("bad-archive", 5),
        ErrorKind::Corrupt | ErrorKind::Latched => ("damaged", 6),
        ErrorKind::Cancelled => ("interrupted", 130),
        _ => ("failed", 1),
    }
}

fn usual_hint(error: &Error) -> Option<String> {
    let hint = match error.kind() {
        ErrorKind::InUse if error.report().contains("by pid") => {
            "Another process has the store open for writing: let it do this, or stop it first. images, layers, inspect, \
             status and check work beside it."
        }
        ErrorKind::InvalidData | ErrorKind::DigestMismatch => {
            "The file is damaged or is not an image: fetch or save it again. Nothing of it was kept."
        }
        ErrorKind::Ambiguous => "Several images begin so: give more digits.",
        ErrorKind::LimitExceeded => "Nothing of it was kept.",
        ErrorKind::Corrupt => {
            "isula-storage check lists what is damaged, and quarantine list what was put aside."
        }
        ErrorKind::ReadOnly => "The file system is mounted read-only.",
        ErrorKind::Os(libc::EACCES | libc::EPERM) => {
            "Run it as root, or choose another --root and --run-root."
        }
        ErrorKind::Os(libc::ENOSPC | libc::EDQUOT) => {
            "Make room on the file system of the store and try again. What had been begun was taken back."
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
