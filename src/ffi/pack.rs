// SPDX-License-Identifier: MulanPSL-2.0
//! Results of very many small parts in one malloc'ed block, which one `free` gives back.
//!
//! What is built is described twice by the same function: first everything is measured, then it is written. The block
//! begins with the array that C gets; what has to be aligned is in front, texts are behind.

use std::ffi::c_char;
use std::mem::{align_of, needs_drop, size_of};
use std::ptr;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::cmem;
use crate::ffi::types::CJsonMapStringString;

/// Of pointers and all numbers.
const ALIGNMENT: usize = align_of::<u64>();
/// What stands for a NUL within a text, which would end it for C.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Gives places in a block; those of the first pass are NULL.
#[derive(Debug)]
pub(crate) struct Packer {
    /// NULL: only measures.
    start: *mut u8,
    aligned: Part,
    texts: Part,
    /// Texts are searched for NULs already when they are measured.
    exact: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Part {
    next: usize,
    end: usize,
}

impl Part {
    /// The place of `bytes`, and that there is room.
    fn take(&mut self, bytes: usize) -> Result<usize> {
        let at = self.next;
        self.next = at.checked_add(bytes).filter(|next| *next <= self.end).ok_or_else(too_large)?;
        Ok(at)
    }
}

#[cold]
fn too_large() -> Error {
    Error::new(ErrorKind::LimitExceeded, "it does not fit into the memory that was measured for it")
}

/// An array of what `build` makes of `values`, and all that it points to, in one block. Never NULL.
///
/// `build` only depends on its value and has no effects: it is called at least twice.
pub(crate) fn pack<T, V>(
    values: &[V],
    build: impl Fn(&mut Packer, &V) -> Result<T>,
) -> Result<(*mut T, usize)> {
    let mut last = None;
    // Hardly any text has a NUL: to look for them takes longer than all else, and is done only where one was found.
    for exact in [false, true] {
        let unbounded = Part { next: 0, end: usize::MAX / 4 };
        let mut measured = Packer { start: ptr::null_mut(), aligned: unbounded, texts: unbounded, exact };
        measured.array(values, &build)?;
        let aligned = Part { next: 0, end: measured.aligned.next };
        let texts = Part { next: aligned.end, end: aligned.end.saturating_add(measured.texts.next) };
        let mut packer = Packer { start: cmem::block(texts.end)?, aligned, texts, exact };
        match packer.array(values, &build) {
            Ok(array) => return Ok((array, values.len())),
            Err(error) => {
                // SAFETY: malloc'ed above and handed to nobody.
                unsafe { cmem::release(packer.start) };
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(too_large))
}

impl Packer {
    fn is_measuring(&self) -> bool {
        self.start.is_null()
    }

    /// Values one behind the other. NULL only while it measures.
    pub(crate) fn array<T, V>(
        &mut self,
        values: &[V],
        mut build: impl FnMut(&mut Packer, &V) -> Result<T>,
    ) -> Result<*mut T> {
        const { assert!(align_of::<T>() <= ALIGNMENT && !needs_drop::<T>()) };
        let size =
            size_of::<T>().next_multiple_of(ALIGNMENT).checked_mul(values.len()).ok_or_else(too_large)?;
        let at = self.aligned.take(size)?;
        let mut array: *mut T = ptr::null_mut();
        if !self.is_measuring() {
            // SAFETY: within the block, as `take` has checked.
            array = unsafe { self.start.add(at) }.cast();
        }
        for (index, value) in values.iter().enumerate() {
            let value = build(self, value)?;
            if !array.is_null() {
                // SAFETY: `values.len()` elements have their place there; it is aligned, for malloc's blocks and the
                // sizes of everything in this part are.
                unsafe { array.add(index).write(value) };
            }
        }
        Ok(array)
    }

    /// One value.
    pub(crate) fn one<T>(&mut self, build: impl FnOnce(&mut Packer) -> Result<T>) -> Result<*mut T> {
        let mut build = Some(build);
        self.array(&[()], |packer, ()| match build.take() {
            Some(build) => build(packer),
            None => Err(too_large()),
        })
    }

    /// Bytes with a NUL behind them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<*mut c_char> {
        let length = bytes.len().checked_add(1).ok_or_else(too_large)?;
        let at = self.texts.take(length)?;
        if self.is_measuring() {
            return Ok(ptr::null_mut());
        }
        // SAFETY: `take` has checked that `length` bytes are within the block.
        unsafe {
            let place = self.start.add(at);
            ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            place.add(bytes.len()).write(0);
            Ok(place.cast())
        }
    }

    /// A text; U+FFFD stands for a NUL in it.
    pub(crate) fn text(&mut self, text: &str) -> Result<*mut c_char> {
        if (self.exact || !self.is_measuring()) && text.contains('\0') {
            let plain: Vec<u8> = text
                .as_bytes()
                .iter()
                .flat_map(|byte| if *byte == 0 { REPLACEMENT } else { std::slice::from_ref(byte) })
                .copied()
                .collect();
            return self.bytes(&plain);
        }
        self.bytes(text.as_bytes())
    }

    /// The same; NULL for `None`.
    pub(crate) fn optional_text(&mut self, text: Option<&str>) -> Result<*mut c_char> {
        text.map_or(Ok(ptr::null_mut()), |text| self.text(text))
    }

    /// A digest with its algorithm.
    pub(crate) fn digest(&mut self, digest: &Digest) -> Result<*mut c_char> {
        self.bytes(&digest.text())
    }

    /// The same; NULL for `None`.
    pub(crate) fn optional_digest(&mut self, digest: Option<&Digest>) -> Result<*mut c_char> {
        digest.map_or(Ok(ptr::null_mut()), |digest| self.digest(digest))
    }

    /// An array of texts, and their number; NULL and 0 when there are none.
    pub(crate) fn texts<S: AsRef<str>>(&mut self, texts: &[S]) -> Result<(*mut *mut c_char, usize)> {
        if texts.is_empty() {
            return Ok((ptr::null_mut(), 0));
        }
        Ok((self.array(texts, |packer, text| packer.text(text.as_ref()))?, texts.len()))
    }

    /// The same of digests.
    pub(crate) fn digests(&mut self, digests: &[Digest]) -> Result<(*mut *mut c_char, usize)> {
        if digests.is_empty() {
            return Ok((ptr::null_mut(), 0));
        }
        Ok((self.array(digests, Packer::digest)?, digests.len()))
    }

    /// Keys and values in this order.
    pub(crate) fn map<'a>(
        &mut self,
        pairs: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Result<CJsonMapStringString> {
        let (keys, values): (Vec<_>, Vec<_>) = pairs.unzip();
        let (keys, len) = self.texts(&keys)?;
        let (values, _) = self.texts(&values)?;
        Ok(CJsonMapStringString { keys, values, len })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Row {
        small: u8,
        text: *mut c_char,
        texts: *mut *mut c_char,
        texts_len: usize,
    }

    fn packed(values: &[Vec<&str>]) -> Vec<Vec<String>> {
        let (rows, len) = pack(values, |packer, texts| {
            let text = packer.optional_text(texts.first().copied())?;
            let (texts, texts_len) = packer.texts(texts)?;
            Ok(Row { small: 1, text, texts, texts_len })
        })
        .unwrap();
        assert!(!rows.is_null());
        let text = |text: *mut c_char| {
            // SAFETY: made above, with a NUL behind it.
            unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
        };
        let mut found = Vec::new();
        for index in 0..len {
            // SAFETY: as many rows were made.
            let row = unsafe { *rows.add(index) };
            assert_eq!((row.small, row.texts.is_null()), (1, row.texts_len == 0));
            // SAFETY: as many texts were made.
            let all: Vec<_> = (0..row.texts_len).map(|at| text(unsafe { *row.texts.add(at) })).collect();
            let first = (!row.text.is_null()).then(|| text(row.text));
            assert_eq!(all.first(), first.as_ref());
            found.push(all);
        }
        // SAFETY: one block.
        unsafe { cmem::release(rows) };
        found
    }

    #[test]
    fn rows_and_their_texts_lie_in_one_block() {
        for values in [
            vec![],
            vec![vec![]],
            vec![vec!["a"], vec![], vec!["", "bc", "é"]],
            vec![vec!["x".repeat(5000).leak() as &str; 3]; 50],
        ] {
            assert_eq!(packed(&values), values);
        }
    }

    #[test]
    fn a_nul_within_a_text_is_replaced_wherever_it_is() {
        let values = [vec!["a", "\0"], vec!["a\0b\0", "c"], vec!["\0\0\0"]];
        let plain =
            [vec!["a", "\u{fffd}"], vec!["a\u{fffd}b\u{fffd}", "c"], vec!["\u{fffd}\u{fffd}\u{fffd}"]];
        assert_eq!(packed(&values), plain);
    }

    #[test]
    fn an_error_of_who_builds_is_that_of_the_call() {
        let result = pack(&[1, 2], |packer, value| {
            packer.text("text")?;
            if *value == 2 { Err(Error::invalid("two")) } else { Ok(*value) }
        });
        assert_eq!(result.unwrap_err().report(), "two");
    }
}
