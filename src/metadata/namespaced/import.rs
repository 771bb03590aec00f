// SPDX-License-Identifier: MulanPSL-2.0
//! Taking over images from another file.

use std::path::Path;
use std::time::Duration;

use super::{Filters, NamespacedFile, NamespacedTransaction, valid};
use crate::error::{During, Error, ErrorKind, Result};
use crate::metadata::boltfile::{Access, Options};
use crate::metadata::{is_exists, shown};

/// What an import did.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// Namespace and name of each image that is new here.
    pub imported: Vec<(String, String)>,
    /// Namespace and name of each image that was here already and points to the same.
    pub present: Vec<(String, String)>,
    /// What was left out, and why: images that are here and point to something else, and those that cannot be read or
    /// that no create would take.
    pub problems: Vec<Error>,
    /// How many images were left out: `problems` tells many of them together.
    pub left_out: u64,
}

impl ImportReport {
    fn leave_out(&mut self, problem: Error) {
        self.left_out += 1;
        self.problems.push(problem);
    }
}

/// Whether an error is for what an image is, not for what could not be done now.
fn is_about_the_image(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Corrupt)
}

pub(super) fn import(
    into: &NamespacedFile,
    from: &Path,
    namespace: Option<&str>,
    timeout: Option<Duration>,
) -> Result<ImportReport> {
    let options = Options { access: Access::ReadOnly, timeout, ..Options::default() };
    let import = || -> Result<_> {
        namespace.map_or(Ok(()), valid::namespace)?;
        // Our own lock would be waited for.
        if into.file().is_at(from) {
            return Err(Error::invalid("it is the file that the images would go to"));
        }
        let from = NamespacedFile::open(from, &options)?.begin();
        into.import_from(&from, namespace)
    };
    import().during(|| format!("import images from {}", from.display()))
}

pub(super) fn import_from(
    into: &NamespacedFile,
    from: &NamespacedTransaction,
    namespace: Option<&str>,
) -> Result<ImportReport> {
    // Every page is looked at below: it must be known that there is an end.
    from.check()?;
    let mut report = ImportReport::default();
    let mut writing = into.begin_write()?;
    let all = from.namespaces()?;
    for namespace in all.iter().filter(|name| namespace.is_none_or(|wanted| wanted == **name)) {
        let listing = from.list(namespace, &Filters::default())?;
        report.left_out += listing.unreadable;
        report.problems.extend(listing.problems.into_iter().map(|(_, error)| error));
        for image in listing.images {
            let id = (namespace.clone(), image.name.clone());
            match writing.insert(namespace, &image) {
                Ok(_) => report.imported.push(id),
                // Never half an image, and none after one.
                Err(error) if writing.is_spoilt() => return Err(error),
                Err(error) if is_exists(&error) => match writing.get(namespace, &image.name) {
                    Ok(ours) if ours.target == image.target => report.present.push(id),
                    Ok(ours) => {
                        let name = shown(image.name.as_bytes());
                        let target = shown(ours.target.digest.as_bytes());
                        report.leave_out(error.context(format!("{name} points to {target} here")));
                    }
                    Err(unreadable) if is_about_the_image(&unreadable) => report.leave_out(unreadable),
                    Err(error) => return Err(error),
                },
                Err(error) if is_about_the_image(&error) => report.leave_out(error),
                Err(error) => return Err(error),
            }
        }
    }
    if !report.imported.is_empty() {
        writing.commit()?;
    }
    Ok(report)
}
