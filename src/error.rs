// SPDX-License-Identifier: MulanPSL-2.0
//! The one error type of the crate.
//!
//! An [`Error`] says what was tried on which thing; its `source` says why it failed. A [`ErrorKind`] exists only
//! where a caller acts on it: each kind has exactly one errno, which is what C callers see.

use std::fmt;
use std::io;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error. [`ErrorKind::errno`] is the whole mapping to C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is wrong; the call had no effect (EINVAL).
    InvalidArgument,
    /// The thing asked for does not exist (ENOENT). Never used for "could not look".
    NotFound,
    /// The thing to be made exists already (EEXIST).
    AlreadyExists,
    /// What was given means more than one thing: a short id that several images share (ENOTUNIQ).
    Ambiguous,
    /// Somebody else uses it: another process owns the store, a layer has children (EBUSY).
    InUse,
    /// The store was opened for reading only (EROFS).
    ReadOnly,
    /// Text that has to be UTF-8 is not (EILSEQ).
    NotUtf8,
    /// What lies in the store does not parse or contradicts itself (EUCLEAN).
    Corrupt,
    /// A stream or file given by the caller is not what it claims to be: truncated, malformed (EBADMSG).
    InvalidData,
    /// The content does not have the digest that was promised (EBADMSG).
    DigestMismatch,
    /// A configured limit was exceeded (EFBIG).
    LimitExceeded,
    /// The kernel or the file system cannot do it (EOPNOTSUPP).
    Unsupported,
    /// The store is closed, or was never opened (ENODEV).
    NotReady,
    /// An earlier failure may have left memory and disk apart: reads go on, writes need a reload (EIO).
    Latched,
    /// The operation was cancelled by a callback or because its store is closing (ECANCELED).
    Cancelled,
    /// A system call failed with this errno.
    Os(i32),
}

impl ErrorKind {
    /// The errno that C callers see for this kind.
    pub fn errno(self) -> i32 {
        match self {
            ErrorKind::InvalidArgument => libc::EINVAL,
            ErrorKind::NotFound => libc::ENOENT,
            ErrorKind::AlreadyExists => libc::EEXIST,
            ErrorKind::Ambiguous => libc::ENOTUNIQ,
            ErrorKind::InUse => libc::EBUSY,
            ErrorKind::ReadOnly => libc::EROFS,
            ErrorKind::NotUtf8 => libc::EILSEQ,
            ErrorKind::Corrupt => libc::EUCLEAN,
            ErrorKind::InvalidData | ErrorKind::DigestMismatch => libc::EBADMSG,
            ErrorKind::LimitExceeded => libc::EFBIG,
            ErrorKind::Unsupported => libc::EOPNOTSUPP,
            ErrorKind::NotReady => libc::ENODEV,
            ErrorKind::Latched => libc::EIO,
            ErrorKind::Cancelled => libc::ECANCELED,
            ErrorKind::Os(errno) => errno,
        }
    }

    /// The kind for an errno of a system call: the few that callers tell apart, else [`ErrorKind::Os`].
    pub fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ENOENT => ErrorKind::NotFound,
            libc::EEXIST => ErrorKind::AlreadyExists,
            libc::EBUSY => ErrorKind::InUse,
            libc::EROFS => ErrorKind::ReadOnly,
            other => ErrorKind::Os(other),
        }
    }
}

/// An error: what was tried on which thing, of which kind, and why it failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    shown: Option<Box<str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Error {
    /// A new error without a cause. `message` is lower case and names the thing: `open image abc: no such image`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), shown: None, source: None }
    }

    /// A new error with its cause.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Error { kind, message: message.into(), shown: None, source: Some(source.into()) }
    }

    /// Shorthand for [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// Shorthand for [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::NotFound, message)
    }

    /// Shorthand for [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Corrupt, message)
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The errno that C callers see.
    pub fn errno(&self) -> i32 {
        self.kind.errno()
    }

    /// Whether there was no room on the disk. What is for convenience only must not fail for that: on a full disk people
    /// open a store to delete something.
    pub fn is_no_space(&self) -> bool {
        matches!(self.kind, ErrorKind::Os(libc::ENOSPC | libc::EDQUOT))
    }

    /// The same error with what was being done put in front; the kind stays.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        Error { kind: self.kind, message: message.into(), shown: None, source: Some(Box::new(self)) }
    }

    /// The same error under another kind; message and cause stay.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error with the text that the person who asked is shown, exactly as it is: an engine prints it. Only for
    /// what a person can do something about; everything else is for the log.
    #[must_use]
    pub fn for_people(mut self, text: impl Into<String>) -> Self {
        self.shown = Some(text.into().into_boxed_str());
        self
    }

    /// The text for the person who asked, of this error or the nearest one below it that has one.
    pub fn shown(&self) -> Option<&str> {
        let mut error = self;
        loop {
            if let Some(text) = &error.shown {
                return Some(text);
            }
            error = std::error::Error::source(error)?.downcast_ref()?;
        }
    }

    /// The whole chain in one line, causes joined by `: `. What people and logs see.
    pub fn report(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// An [`Error`] can travel through `std::io::Error` (a `Read` or `Write` callback) and come back with its kind.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = io::Error::from_raw_os_error(error.errno()).kind();
        io::Error::new(kind, error)
    }
}

fn from_io(error: io::Error, message: String) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        // One of ours on its way back: keep its kind.
        if let Some(Ok(ours)) = error.into_inner().map(|inner| inner.downcast::<Error>()) {
            return ours.context(message);
        }
        return Error::new(ErrorKind::Os(libc::EIO), message);
    }
    let kind = match (error.raw_os_error(), error.kind()) {
        (Some(errno), _) => ErrorKind::from_errno(errno),
        (None, io::ErrorKind::NotFound) => ErrorKind::NotFound,
        (None, io::ErrorKind::AlreadyExists) => ErrorKind::AlreadyExists,
        (None, io::ErrorKind::InvalidInput) => ErrorKind::InvalidArgument,
        (None, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => ErrorKind::InvalidData,
        (None, io::ErrorKind::Unsupported) => ErrorKind::Unsupported,
        (None, _) => ErrorKind::Os(libc::EIO),
    };
    Error::with_source(kind, message, error)
}

/// Puts what was being done in front of an error: `file.sync_all().during(|| format!("sync {name}"))?`.
pub trait During<T> {
    /// Converts the error, with `message()` saying what was tried on which thing.
    fn during<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| from_io(error, message().into()))
    }
}

impl<T> During<T> for rustix::io::Result<T> {
    fn during<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|errno| from_io(io::Error::from(errno), message().into()))
    }
}

impl<T> During<T> for Result<T> {
    fn during<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| error.context(message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_documented_errno() {
        let table = [
            (ErrorKind::InvalidArgument, libc::EINVAL),
            (ErrorKind::NotFound, libc::ENOENT),
            (ErrorKind::AlreadyExists, libc::EEXIST),
            (ErrorKind::Ambiguous, libc::ENOTUNIQ),
            (ErrorKind::InUse, libc::EBUSY),
            (ErrorKind::ReadOnly, libc::EROFS),
            (ErrorKind::NotUtf8, libc::EILSEQ),
            (ErrorKind::Corrupt, libc::EUCLEAN),
            (ErrorKind::InvalidData, libc::EBADMSG),
            (ErrorKind::DigestMismatch, libc::EBADMSG),
            (ErrorKind::LimitExceeded, libc::EFBIG),
            (ErrorKind::Unsupported, libc::EOPNOTSUPP),
            (ErrorKind::NotReady, libc::ENODEV),
            (ErrorKind::Latched, libc::EIO),
            (ErrorKind::Cancelled, libc::ECANCELED),
            (ErrorKind::Os(libc::ENOSPC), libc::ENOSPC),
        ];
        for (kind, errno) in table {
            assert_eq!(kind.errno(), errno, "{kind:?}");
        }
        assert_eq!(ErrorKind::from_errno(libc::ENOSPC), ErrorKind::Os(libc::ENOSPC));
        assert_eq!(ErrorKind::from_errno(libc::ENOENT), ErrorKind::NotFound);
    }

    #[test]
    fn report_joins_the_chain_and_keeps_the_kind() {
        let io: io::Result<()> = Err(io::Error::from_raw_os_error(libc::ENOSPC));
        let error = io.during(|| "write file x").during(|| "save image y").unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC);
        assert_eq!(error.report(), "save image y: write file x: No space left on device (os error 28)");
    }

    #[test]
    fn the_text_for_people_survives_context_kind_and_io() {
        assert_eq!(Error::invalid("id is NULL").context("delete").shown(), None);
        let io: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(io.during(|| "read").unwrap_err().shown(), None);

        let error = Error::new(ErrorKind::InUse, "delete image x: a container uses it")
            .for_people("Image used by 100%s");
        assert_eq!(error.report(), "delete image x: a container uses it");
        let error = error.context("remove").with_kind(ErrorKind::InvalidArgument);
        assert_eq!(error.shown(), Some("Image used by 100%s"));
        let io: io::Result<()> = Err(error.into());
        let error = io.during(|| "call").during(|| "again").unwrap_err();
        assert_eq!((error.shown(), error.errno()), (Some("Image used by 100%s"), libc::EINVAL));
        assert_eq!(error.for_people("nearer").shown(), Some("nearer"));
    }

    #[test]
    fn an_error_survives_a_trip_through_io() {
        let inner = Error::new(ErrorKind::DigestMismatch, "digest differs");
        let io: io::Result<()> = Err(io::Error::from(inner));
        let error = io.during(|| "read layer").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DigestMismatch);
        assert_eq!(error.report(), "read layer: digest differs");
    }
}
