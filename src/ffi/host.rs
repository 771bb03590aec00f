// SPDX-License-Identifier: MulanPSL-2.0
//! What the process around the library offers: set by isula_storage_set_host, else iSulad's own functions if the
//! process has them. Everything may be absent.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::{offset_of, size_of};
use std::path::PathBuf;

use once_cell::sync::Lazy;
use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::ffi::guard::{guard, outermost};
use crate::ffi::{arg, cmem};
use crate::storage::OwnerShift;

/// Shows the text of a failure to the person who asked.
#[allow(non_camel_case_types, reason = "a name of the C header")]
pub type isula_storage_error_fn = Option<unsafe extern "C" fn(message: *const c_char, userdata: *mut c_void)>;

/// Learns that something is left to clean up. `kind` 1: a container's root file system is broken, `id` is the container's.
#[allow(non_camel_case_types, reason = "a name of the C header")]
pub type isula_storage_clean_up_fn =
    Option<unsafe extern "C" fn(kind: c_int, id: *const c_char, userdata: *mut c_void)>;

/// Kind of isula_storage_clean_up_fn: a container's root file system is broken. iSulad's number.
pub const ISULA_STORAGE_BROKEN_ROOTFS: c_int = 1;

/// What the process offers. Members that are NULL, or beyond `size`, are looked up in the process under the names that
/// iSulad gives them; what is found nowhere is done without.
#[repr(C)]
#[derive(Debug)]
pub struct CHost {
    /// sizeof(struct isula_storage_host) of the caller's header: later versions may add members.
    pub size: usize,
    /// Handed to the functions.
    pub userdata: *mut c_void,
    /// Shows the text of each failing call, except "not found"; NULL: isulad_set_error_message, which gets only the
    /// texts that iSulad's own module shows to people, such as `Image used by`.
    pub set_error_message: isula_storage_error_fn,
    /// Root directory of the engine; NULL: conf_get_isulad_rootdir.
    pub root_dir: *const c_char,
    /// Registry host that is not shown in image names, such as `docker.io`; NULL: get_hostname_to_strip.
    pub default_registry_host: *const c_char,
    /// Shift of owners as `uid:gid:size`; NULL: conf_get_isulad_userns_remap.
    pub userns_remap: *const c_char,
    /// Learns what is left to clean up; NULL: clean_module_fill_ctx.
    pub clean_up: isula_storage_clean_up_fn,
}

struct Host {
    userdata: *mut c_void,
    set_error_message: isula_storage_error_fn,
    clean_up: isula_storage_clean_up_fn,
    root_dir: Option<String>,
    default_registry_host: Option<String>,
    userns_remap: Option<String>,
}

// SAFETY: the caller of `isula_storage_set_host` promises that functions and userdata may be used from any thread.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

static HOST: RwLock<Host> = RwLock::new(Host {
    userdata: std::ptr::null_mut(),
    set_error_message: None,
    clean_up: None,
    root_dir: None,
    default_registry_host: None,
    userns_remap: None,
});

/// iSulad's functions as this process has them, looked up once.
struct Process {
    set_error_message: Option<unsafe extern "C" fn(format: *const c_char, ...)>,
    root_dir: Option<TextFn>,
    userns_remap: Option<TextFn>,
    host_to_strip: Option<TextFn>,
    clean_up: Option<unsafe extern "C" fn(kind: c_int, data: *mut c_void)>,
}

/// Gives a malloc'ed text or NULL.
type TextFn = unsafe extern "C" fn() -> *mut c_char;

static PROCESS: Lazy<Process> = Lazy::new(|| {
    // SAFETY: under these names the process has iSulad's functions, or none; their types are iSulad's.
    unsafe {
        Process {
            set_error_message: symbol(c"isulad_set_error_message").map(|f| std::mem::transmute(f)),
            root_dir: symbol(c"conf_get_isulad_rootdir").map(|f| std::mem::transmute(f)),
            userns_remap: symbol(c"conf_get_isulad_userns_remap").map(|f| std::mem::transmute(f)),
            host_to_strip: symbol(c"get_hostname_to_strip").map(|f| std::mem::transmute(f)),
            clean_up: symbol(c"clean_module_fill_ctx").map(|f| std::mem::transmute(f)),
        }
    }
});

/// Address of a symbol of the process, `None` when it has none of that name.
pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `name` is NUL-terminated.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// What a function of the process says now; `None` for NULL, for no UTF-8 and when there is no such function.
fn ask(function: Option<TextFn>) -> Option<String> {
    // SAFETY: iSulad's function takes nothing and gives NULL or a malloc'ed text that is the caller's.
    let text = unsafe { function?() };
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, so a NUL-terminated text.
    let copy = unsafe { CStr::from_ptr(text) }.to_str().ok().map(str::to_owned);
    // SAFETY: malloc'ed, and not used any more.
    unsafe { cmem::release(text) };
    copy
}

/// Shows a failure to the person who asked. The host's callback gets `text`, why the call failed, unless that is no news;
/// iSulad's function gets `shown` only, the text made for people: for all else iSulad has texts of its own, which
/// must not be overwritten.
pub(crate) fn show_error(text: Option<&str>, shown: Option<&str>) {
    let string = |text: &str| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
    let (callback, userdata) = {
        let host = HOST.read();
        (host.set_error_message, host.userdata)
    };
    if let Some(callback) = callback {
        if let Some(text) = text.or(shown).map(string) {
            // SAFETY: the caller of `isula_storage_set_host` promises that it may be called with its userdata.
            outermost(|| unsafe { callback(text.as_ptr(), userdata) });
        }
    } else if let (Some(function), Some(shown)) = (PROCESS.set_error_message, shown.map(string)) {
        // SAFETY: iSulad's function copies its text; the format has one text.
        unsafe { function(c"%s".as_ptr(), shown.as_ptr()) }
    }
}

/// Root directory of the engine.
pub fn root_dir() -> Option<PathBuf> {
    let set = HOST.read().root_dir.clone();
    set.or_else(|| ask(PROCESS.root_dir)).map(PathBuf::from)
}

/// Registry host that is not shown in image names, without the slash that iSulad's function ends it with.
pub fn default_registry_host() -> Option<String> {
    let set = HOST.read().default_registry_host.clone();
    let host = set.or_else(|| ask(PROCESS.host_to_strip))?;
    let host = host.trim_end_matches('/');
    (!host.is_empty()).then(|| host.to_owned())
}

/// Shift of owners into a user namespace.
pub fn owner_shift() -> Result<Option<OwnerShift>> {
    let set = HOST.read().userns_remap.clone();
    set.or_else(|| ask(PROCESS.userns_remap)).map_or(Ok(None), |text| parse_shift(&text).map(Some))
}

/// `uid:gid:size`, size 1 to 65535.
fn parse_shift(text: &str) -> Result<OwnerShift> {
    let mut parts = text.split(':').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
        (Some(uid), Some(gid), Some(1..=65_535), None) => Ok(OwnerShift { uid, gid }),
        _ => Err(Error::invalid(format!(
            "userns remap {text:?} is not uid:gid:size with a size of 1 to 65535"
        ))),
    }
}

/// Tells the engine that a container's root file system is broken.
pub fn report_broken_rootfs(id: &str) {
    let Ok(id) = CString::new(id) else { return };
    let (callback, userdata) = {
        let host = HOST.read();
        (host.clean_up, host.userdata)
    };
    if let Some(callback) = callback {
        // SAFETY: the caller of `isula_storage_set_host` promises that it may be called with its userdata.
        unsafe { callback(ISULA_STORAGE_BROKEN_ROOTFS, id.as_ptr(), userdata) }
    } else if let Some(function) = PROCESS.clean_up {
        // SAFETY: iSulad's function copies the id and does not write through the pointer.
        unsafe { function(ISULA_STORAGE_BROKEN_ROOTFS, id.as_ptr().cast_mut().cast()) }
    }
}

/// Copies the caller's struct; members beyond its size are NULL.
///
/// # Safety
/// `host` points to a struct of `host->size` bytes whose members are as documented.
unsafe fn read_host(host: *const CHost) -> Result<Host> {
    // SAFETY: the caller's promise; every version starts with the size.
    let size = unsafe { (&raw const (*host).size).read() };
    if size < offset_of!(CHost, set_error_message) {
        return Err(Error::invalid(format!("host->size {size} is too small")));
    }
    let mut copy = std::mem::MaybeUninit::<CHost>::zeroed();
    // SAFETY: at most the bytes that both have.
    unsafe {
        std::ptr::copy_nonoverlapping(
            host.cast::<u8>(),
            copy.as_mut_ptr().cast::<u8>(),
            size.min(size_of::<CHost>()),
        );
    }
    // SAFETY: zero bytes are valid: NULL and absent functions.
    let host = unsafe { copy.assume_init() };
    // SAFETY: the caller's promise.
    let text =
        |pointer, name| unsafe { arg::optional_text(pointer, name) }.map(|text| text.map(str::to_owned));
    Ok(Host {
        userdata: host.userdata,
        set_error_message: host.set_error_message,
        clean_up: host.clean_up,
        root_dir: text(host.root_dir, "host->root_dir")?,
        default_registry_host: text(host.default_registry_host, "host->default_registry_host")?,
        userns_remap: text(host.userns_remap, "host->userns_remap")?,
    })
}

/// Says what the process offers. Stores that are open keep what they were opened with; the two functions count at once.
///
/// @param host borrowed, copied during the call; its size member must be set
/// @return 0, or -1 with errno EINVAL (host NULL, size too small, userns_remap malformed), EILSEQ (a text is not UTF-8);
/// nothing changes on failure
///
/// # Safety
/// `host` must point to a struct of `host->size` bytes; its functions must be usable from any thread as long as the
/// library is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isula_storage_set_host(host: *const CHost) -> c_int {
    guard("isula_storage_set_host", || {
        // SAFETY: the caller's promise.
        unsafe { arg::required(host.cast::<usize>(), "host") }?;
        // SAFETY: the caller's promise.
        let host = unsafe { read_host(host) }?;
        host.userns_remap.as_deref().map_or(Ok(()), |text| parse_shift(text).map(drop))?;
        *HOST.write() = host;
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_uid_gid_size() {
        assert_eq!(parse_shift("100000:200000:65535").unwrap(), OwnerShift { uid: 100_000, gid: 200_000 });
        for bad in ["", "1", "1:2", "1:2:0", "1:2:65536", "1:2:3:4", "a:2:3", "-1:2:3", "1:2:", " 1:2:3"] {
            assert!(parse_shift(bad).is_err(), "{bad}");
        }
    }
}
