// SPDX-License-Identifier: MulanPSL-2.0
//! The log: a callback that the caller sets; without one, iSulad's own log where the process has it; else errors go to
//! stderr.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::ffi::guard::{errno, guard, outermost, set_errno};
use crate::ffi::isulad_log;

/// Level of isula_storage_set_log: nothing is logged.
pub const ISULA_STORAGE_LOG_OFF: c_int = 0;
/// Level: something failed that the caller may not learn otherwise.
pub const ISULA_STORAGE_LOG_ERROR: c_int = 1;
/// Level: something was refused or put aside.
pub const ISULA_STORAGE_LOG_WARN: c_int = 2;
/// Level: what the library does.
pub const ISULA_STORAGE_LOG_INFO: c_int = 3;
/// Level: details.
pub const ISULA_STORAGE_LOG_DEBUG: c_int = 4;
/// Level: everything.
pub const ISULA_STORAGE_LOG_TRACE: c_int = 5;

/// Takes one line of the log, without a newline: control characters, of a name for instance, are shown as `\n` or
/// `\u{1b}`. `message` is valid during the call only.
#[allow(non_camel_case_types, reason = "a name of the C header")]
pub type isula_storage_log_fn =
    Option<unsafe extern "C" fn(level: c_int, message: *const c_char, userdata: *mut c_void)>;

#[derive(Clone, Copy)]
struct Sink {
    callback: isula_storage_log_fn,
    userdata: *mut c_void,
    /// None until it is set.
    level: Option<LevelFilter>,
}

// SAFETY: the caller of `isula_storage_set_log` promises that callback and userdata may be used from any thread.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

static SINK: RwLock<Sink> = RwLock::new(Sink { callback: None, userdata: std::ptr::null_mut(), level: None });

/// Whether the process's log is ours: of another's, the level is not ours to set.
static INSTALLED: AtomicBool = AtomicBool::new(false);

struct Logger;

/// Where a line goes.
enum Way {
    Callback(unsafe extern "C" fn(c_int, *const c_char, *mut c_void)),
    Isulad,
    Stderr,
}

impl Sink {
    fn way(&self) -> Way {
        match self.callback {
            Some(callback) => Way::Callback(callback),
            None if isulad_log::present() => Way::Isulad,
            None => Way::Stderr,
        }
    }

    /// What is asked for; iSulad's log decides each time anew, so everything is until a level is set.
    fn limit(&self) -> LevelFilter {
        self.level.unwrap_or(match self.way() {
            Way::Isulad => LevelFilter::Trace,
            Way::Callback(_) | Way::Stderr => LevelFilter::Error,
        })
    }

    fn takes(&self, level: Level) -> bool {
        level <= self.limit() && (!matches!(self.way(), Way::Isulad) || isulad_log::enabled(level))
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        SINK.read().takes(metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        // Copied out: no lock is held while foreign code runs.
        let sink = *SINK.read();
        if !sink.takes(record.level()) {
            return;
        }
        let before = errno();
        match sink.way() {
            Way::Callback(callback) => {
                let text = line(record);
                outermost(|| {
                    // SAFETY: the caller of `isula_storage_set_log` promises that it may be called with its userdata.
                    unsafe { callback(number(record.level()), text.as_ptr(), sink.userdata) }
                });
            }
            Way::Isulad => outermost(|| isulad_log::append(record, &line(record))),
            // Nothing is left to be done when even stderr fails.
            Way::Stderr => {
                drop(writeln!(std::io::stderr(), "isula-storage: {}", line(record).to_string_lossy()));
            }
        }
        set_errno(before);
    }

    fn flush(&self) {}
}

/// Becomes the process's logger, once, unless a Rust program has set its own.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&Logger).is_ok() {
            INSTALLED.store(true, Ordering::Release);
            log::set_max_level(SINK.read().limit());
        }
    });
}

/// The text of a line. Names come from callers and images: what they bring along does not end the line, nor reach the
/// terminal of whoever reads the log.
fn line(record: &Record<'_>) -> CString {
    let text = record.args().to_string();
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    CString::new(shown).unwrap_or_default()
}

fn number(level: Level) -> c_int {
    match level {
        Level::Error => ISULA_STORAGE_LOG_ERROR,
        Level::Warn => ISULA_STORAGE_LOG_WARN,
        Level::Info => ISULA_STORAGE_LOG_INFO,
        Level::Debug => ISULA_STORAGE_LOG_DEBUG,
        Level::Trace => ISULA_STORAGE_LOG_TRACE,
    }
}

fn filter(level: c_int) -> Result<LevelFilter> {
    Ok(match level {
        ISULA_STORAGE_LOG_OFF => LevelFilter::Off,
        ISULA_STORAGE_LOG_ERROR => LevelFilter::Error,
        ISULA_STORAGE_LOG_WARN => LevelFilter::Warn,
        ISULA_STORAGE_LOG_INFO => LevelFilter::Info,
        ISULA_STORAGE_LOG_DEBUG => LevelFilter::Debug,
        ISULA_STORAGE_LOG_TRACE => LevelFilter::Trace,
        _ => return Err(Error::invalid(format!("level {level} is not between 0 and 5"))),
    })
}

/// Sets where the log goes and how much of it.
///
/// @param callback takes one line each, from any thread, also several at once; NULL: iSulad's log if the process has
/// libisula's g_lxc_log_category_lxc, else stderr
/// @param userdata handed to the callback; borrowed until another callback is set and calls that are under way have
/// returned; may be NULL
/// @param level one of ISULA_STORAGE_LOG_OFF to ISULA_STORAGE_LOG_TRACE
/// @return 0, or -1 with errno EINVAL (unknown level; nothing changes)
///
/// Until it is called, the log goes to iSulad's log as if callback were NULL and level ISULA_STORAGE_LOG_TRACE, or only
/// errors to stderr. iSulad's log has its own level, which counts as well. What is logged: at level error, internal errors
/// and damage; warn, calls that failed and what was put aside or left alone; debug, questions answered with "not found".
///
/// The callback may call this library; of what happens in such a call it is not told.
///
/// # Safety
/// `callback` and `userdata` must be usable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_set_log(
    callback: isula_storage_log_fn,
    userdata: *mut c_void,
    level: c_int,
) -> c_int {
    guard("isula_storage_set_log", || {
        let level = filter(level)?;
        *SINK.write() = Sink { callback, userdata, level: Some(level) };
        if INSTALLED.load(Ordering::Acquire) {
            log::set_max_level(level);
        }
        Ok(0)
    })
}
