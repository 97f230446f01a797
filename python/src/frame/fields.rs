//! The fields of a frame.

use std::fmt;

/// What was read is no frame, or no whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what came over the socket is no frame")
    }
}

impl std::error::Error for Cut {}

/// Writes one frame after what stands there already.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    /// Where the frame's length stands.
    at: usize,
}

/// No text.
const NONE: u32 = u32::MAX;

impl Writer {
    /// Begins a frame of that kind.
    pub fn new(kind: u8) -> Self {
        Writer::appending(&mut Vec::with_capacity(512), kind)
    }

    /// Begins a frame after others; [`Writer::end`] gives all of them back.
    pub fn appending(out: &mut Vec<u8>, kind: u8) -> Self {
        let mut out = std::mem::take(out);
        let at = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, kind]);
        Writer { out, at }
    }

    /// Writes the frame's length.
    pub fn end(mut self) -> Vec<u8> {
        // What is longer than four bytes can say is longer than any frame, and is refused by whoever reads it.
        let length = u32::try_from(self.out.len() - self.at - 4).unwrap_or(u32::MAX);
        self.out[self.at..self.at + 4].copy_from_slice(&length.to_le_bytes());
        self.out
    }

    /// Where fields are appended.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// Yes or no.
    pub fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    /// Eight bytes.
    pub fn number(&mut self, number: u64) {
        self.out.extend_from_slice(&number.to_le_bytes());
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A text, or none.
    pub fn optional_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.out.extend_from_slice(&NONE.to_le_bytes()),
        }
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        put(bytes, &mut self.out);
    }
}

/// Appends a length and as many bytes.
pub(super) fn put(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(NONE).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads the fields of one frame.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The frame's kind and its fields.
    ///
    /// # Errors
    /// There is nothing.
    pub fn new(frame: &'a [u8]) -> Result<(u8, Self), Cut> {
        let (kind, fields) = frame.split_first().ok_or(Cut)?;
        Ok((*kind, Reader(fields)))
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// One byte.
    ///
    /// # Errors
    /// There is none, as with all that follows.
    pub fn byte(&mut self) -> Result<u8, Cut> {
        Ok(self.array::<1>()?[0])
    }

    /// Yes or no.
    ///
    /// # Errors
    /// There is none.
    pub fn flag(&mut self) -> Result<bool, Cut> {
        Ok(self.byte()? != 0)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// There are none.
    pub fn number(&mut self) -> Result<u64, Cut> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A text.
    ///
    /// # Errors
    /// There is none, or it is not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Cut> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Cut)
    }

    /// A text, if there is one.
    ///
    /// # Errors
    /// As [`Reader::text`].
    pub fn optional_text(&mut self) -> Result<Option<&'a str>, Cut> {
        if self.0.starts_with(&NONE.to_le_bytes()) {
            self.take(4)?;
            return Ok(None);
        }
        self.text().map(Some)
    }

    /// Bytes.
    ///
    /// # Errors
    /// There are not so many.
    pub fn bytes(&mut self) -> Result<&'a [u8], Cut> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        self.take(length)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Cut> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Cut)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Cut> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Cut)?;
        self.0 = rest;
        Ok(bytes)
    }
}
