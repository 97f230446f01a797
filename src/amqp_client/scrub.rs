//! [`scrub`]: makes what a server sends fit for the client library, which takes names that are no UTF-8 for the end of the
//! connection, and follows nested headers until its stack ends. RabbitMQ hands on both as producers wrote them, so one
//! such message would keep a worker from its queue for good.
//!
//! The bytes keep their number: what is no UTF-8 in a short string becomes `?`, and a table that is nested too deeply
//! becomes the text of its bytes. A frame that is not understood is left as it is.

/// How deep headers may be nested: each level takes kilobytes of the library's stack.
const MAX_DEPTH: usize = 32;
/// A frame's type, channel and size.
const HEAD: usize = 7;
/// And its end.
const TAIL: usize = 1;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// The names of basic properties that are short strings, a table, a number or a time, from the first flag on.
const PROPERTIES: &[u8; 14] = b"ssFBBssssTssss";

/// What is known of the bytes at the front of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scrubbed {
    /// So many of them are whole frames, and fit; what follows has yet to arrive.
    Frames(usize),
    /// From here on they are no frames, or too large to be waited for: they go through as they are.
    Unframed,
}

/// Makes the whole frames at the front of `bytes` fit; `largest` is the size from which on a frame is not waited for.
pub(super) fn scrub(bytes: &mut [u8], largest: usize) -> Scrubbed {
    let mut done = 0;
    loop {
        let rest = &mut bytes[done..];
        let Some(head) = rest.first_chunk::<HEAD>() else { return Scrubbed::Frames(done) };
        let [kind, _, _, size @ ..] = *head;
        let size = u32::from_be_bytes(size) as usize;
        if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) || size > largest {
            return if done > 0 { Scrubbed::Frames(done) } else { Scrubbed::Unframed };
        }
        let Some(frame) = rest.get_mut(..HEAD + size + TAIL) else { return Scrubbed::Frames(done) };
        let mut payload = Cursor { bytes: &mut frame[HEAD..HEAD + size], at: 0 };
        // What is not understood is for the library to judge.
        let _ = match kind {
            METHOD => payload.method(),
            HEADER => payload.header(),
            _ => Some(()),
        };
        done += HEAD + size + TAIL;
    }
}

/// A place in a frame's payload. `None` from any of its methods: the payload is other than it should be.
struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        self.take().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }

    /// A short string.
    fn name(&mut self) -> Option<()> {
        let [length] = self.take()?;
        let begin = self.at;
        self.skip(length.into())?;
        let mut text = &mut self.bytes[begin..self.at];
        while let Err(error) = std::str::from_utf8(text) {
            text = &mut text[error.valid_up_to()..];
            text[0] = b'?';
        }
        Some(())
    }

    /// Those methods of a server whose names come from somebody else, or may have been cut in the middle of a letter.
    fn method(&mut self) -> Option<()> {
        match (self.short()?, self.short()?) {
            // basic.deliver
            (60, 60) => {
                self.name()?;
                self.skip(8 + 1)?;
                self.name()?;
                self.name()
            }
            // basic.get-ok
            (60, 71) => {
                self.skip(8 + 1)?;
                self.name()?;
                self.name()
            }
            // basic.return
            (60, 50) => {
                self.skip(2)?;
                self.name()?;
                self.name()?;
                self.name()
            }
            // connection.close and channel.close
            (10, 50) | (20, 40) => {
                self.skip(2)?;
                self.name()
            }
            _ => Some(()),
        }
    }

    /// A content header.
    fn header(&mut self) -> Option<()> {
        self.skip(2 + 2 + 8)?;
        let flags = self.short()?;
        for (nth, property) in PROPERTIES.iter().enumerate() {
            if flags & (0x8000 >> nth) == 0 {
                continue;
            }
            match property {
                b's' => self.name()?,
                b'F' => self.table(0)?,
                b'T' => self.skip(8)?,
                _ => self.skip(1)?,
            }
        }
        Some(())
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let length = self.length()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        while self.at < end {
            self.name()?;
            self.value(depth)?;
        }
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        let length = self.length()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        while self.at < end {
            self.value(depth)?;
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let place = self.at;
        let [kind] = self.take()?;
        match kind {
            b'A' | b'F' if depth + 1 >= MAX_DEPTH => {
                // A text has its length in the same place.
                self.bytes[place] = b'S';
                let length = self.length()?;
                self.skip(length)
            }
            b'A' => self.array(depth + 1),
            b'F' => self.table(depth + 1),
            b'S' | b'x' => {
                let length = self.length()?;
                self.skip(length)
            }
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'l' | b'L' | b'd' | b'T' => self.skip(8),
            b'V' => Some(()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: usize = 131_072;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], size.as_slice(), payload, &[0xce]].concat()
    }

    fn name(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    }

    /// A content header with a table of headers and a correlation id.
    fn header(table: &[u8], id: &[u8]) -> Vec<u8> {
        let flags = (0x8000_u16 >> 2 | 0x8000 >> 5).to_be_bytes();
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        let fixed = [&[0, 60, 0, 0], [0; 8].as_slice(), &flags].concat();
        frame(HEADER, &[fixed.as_slice(), &length, table, &name(id)].concat())
    }

    fn check(before: &[u8], after: &[u8]) {
        let mut bytes = before.to_vec();
        assert_eq!(scrub(&mut bytes, LARGEST), Scrubbed::Frames(before.len()));
        assert_eq!(bytes, after);
    }

    #[test]
    fn names_become_text_and_keep_their_length() {
        let deliver = |key: &[u8]| {
            let fixed = [&[0, 60, 0, 60], name(b"ctag").as_slice(), &[0, 0, 0, 0, 0, 0, 0, 7, 0]].concat();
            frame(METHOD, &[fixed.as_slice(), &name(b""), &name(key)].concat())
        };
        check(&deliver(b"a\xed\xb3\xbfb"), &deliver(b"a???b"));
        check(&deliver("é→".as_bytes()), &deliver("é→".as_bytes()));
        let close = |text: &[u8]| frame(METHOD, &[[0, 20, 0, 40, 1, 0x96].as_slice(), &name(text), &[0; 4]].concat());
        check(&close(b"cut \xe2\x86"), &close(b"cut ??"));
        let table = |key: &[u8], value: &[u8]| [name(key).as_slice(), b"S\0\0\0\x01", value].concat();
        check(&header(&table(b"k\xff", b"\xff"), b"\xff1"), &header(&table(b"k?", b"\xff"), b"?1"));
    }

    #[test]
    fn what_is_nested_too_deeply_becomes_text() {
        let nested = |levels: usize| {
            (0..levels).fold(b"V".to_vec(), |inner, _| {
                let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
                [b"A".as_slice(), &length, &inner].concat()
            })
        };
        let whole = |levels| header(&[name(b"h").as_slice(), &nested(levels)].concat(), b"1");
        check(&whole(MAX_DEPTH - 1), &whole(MAX_DEPTH - 1));
        let mut bytes = whole(20_000);
        let (before, texts) = (bytes.len(), |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'S').count());
        let known = texts(&bytes);
        assert_eq!(scrub(&mut bytes, LARGEST), Scrubbed::Frames(before));
        assert_eq!(texts(&bytes), known + 1);
    }

    #[test]
    fn only_whole_frames_are_handed_on() {
        let frames = [header(&[], b"\xff"), frame(BODY, b"\xff\xff"), frame(HEARTBEAT, b"")].concat();
        let first = header(&[], b"\xff").len();
        for length in 0..frames.len() {
            let mut bytes = frames[..length].to_vec();
            let Scrubbed::Frames(done) = scrub(&mut bytes, LARGEST) else { panic!("these are frames") };
            assert!(done <= length && (length < first) == (done == 0), "{done} of {length}");
        }
        assert_eq!(scrub(&mut b"AMQP\0\0\x09\x01".to_vec(), LARGEST), Scrubbed::Unframed);
        assert_eq!(scrub(&mut frame(BODY, &[0; 100]), 99), Scrubbed::Unframed);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let kinds = [METHOD, HEADER, BODY];
            let mut payload: Vec<u8> = (0..rng.usize(..60)).map(|_| rng.u8(..)).collect();
            if payload.len() > 16 && rng.bool() {
                payload[..4].copy_from_slice(&[0, 60, 0, 60]);
                payload[12] = 0x20;
            }
            let mut bytes = frame(kinds[rng.usize(..3)], &payload);
            bytes.truncate(rng.usize(..=bytes.len()));
            scrub(&mut bytes, LARGEST);
        }
    }
}
