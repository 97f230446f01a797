//! [`Compression`]: how a message's body is squeezed, by Kombu's names (kombu/compression.py).

use std::io::{Read, Write};

use flate2::{Decompress, FlushDecompress, Status};

use crate::{Error, ErrorKind, Result};

/// A way to compress a message's body, after it was serialised and before a transport wraps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A zlib stream, under the MIME type of gzip.
    Zlib,
    /// bzip2.
    Bzip2,
    /// The xz container; the older lzma container is read as well.
    Xz,
    /// Zstandard frames.
    Zstd,
    /// Brotli.
    Brotli,
}

/// Each compression with the MIME type of the header `compression` and the names that settings may give it.
const NAMES: [(Compression, &str, &[&str]); 5] = [
    (Compression::Zlib, "application/x-gzip", &["gzip", "zlib"]),
    (Compression::Bzip2, "application/x-bz2", &["bzip2", "bzip"]),
    (Compression::Xz, "application/x-lzma", &["lzma", "xz"]),
    (Compression::Zstd, "application/zstd", &["zstd", "zstandard"]),
    (Compression::Brotli, "application/x-brotli", &["brotli"]),
];

/// What a decoder of xz may use: as much as the strongest preset needs (65 MiB), so that a header cannot ask for more.
const XZ_MEMORY: u64 = 128 << 20;

/// Brotli's quality. The best one, 11, which Python's module takes, is made for files that are compressed once and read
/// often; a message is read once.
const BROTLI_QUALITY: u32 = 5;

/// Brotli's window as Python's `brotli.compress` chooses it: 4 MiB.
const BROTLI_WINDOW: u32 = 22;

impl Compression {
    /// The compression that a message's header `compression` names, by its MIME type or, as Kombu's `get_decoder` also
    /// takes it, by an alias. Another one is an error of kind [`ErrorKind::Decode`].
    pub fn of_header(header: &str) -> Result<Self> {
        named(header).ok_or_else(|| Error::new(ErrorKind::Decode, format!("unknown compression {header:?}")))
    }

    /// The compression that a setting names: `zlib`, `bzip2`, `zstd`, or a MIME type. Another one is an error of kind
    /// [`ErrorKind::Configuration`].
    pub fn of_name(name: &str) -> Result<Self> {
        named(name).ok_or_else(|| Error::new(ErrorKind::Configuration, format!("unknown compression {name:?}")))
    }

    /// What the header `compression` says: `application/x-gzip`.
    pub fn header(self) -> &'static str {
        match self {
            Compression::Zlib => "application/x-gzip",
            Compression::Bzip2 => "application/x-bz2",
            Compression::Xz => "application/x-lzma",
            Compression::Zstd => "application/zstd",
            Compression::Brotli => "application/x-brotli",
        }
    }

    /// Compresses `body`, at the level that Python's module takes if none is asked for; Brotli at a quicker one.
    pub fn compress(self, body: &[u8]) -> Result<Vec<u8>> {
        let out = Vec::with_capacity(body.len() / 2 + 64);
        let compressed = match self {
            Compression::Zlib => {
                all(flate2::write::ZlibEncoder::new(out, flate2::Compression::default()), body, |to| to.finish())
            }
            Compression::Bzip2 => {
                all(bzip2::write::BzEncoder::new(out, bzip2::Compression::best()), body, |to| to.finish())
            }
            Compression::Xz => all(liblzma::write::XzEncoder::new(out, 6), body, |to| to.finish()),
            Compression::Zstd => zstd::bulk::compress(body, zstd::DEFAULT_COMPRESSION_LEVEL),
            Compression::Brotli => brotli(body, out),
        };
        compressed.map_err(|cause| {
            Error::new(ErrorKind::Encode, format!("cannot compress a body as {}", self.header())).with_source(cause)
        })
    }

    /// Restores what [`compress`](Self::compress), or Kombu, made of a body.
    ///
    /// Corrupt or truncated input, and a body of more than `limit` bytes, are errors of kind [`ErrorKind::Decode`]; memory
    /// is taken as the body grows, never by what a header promises.
    pub fn decompress(self, compressed: &[u8], limit: usize) -> Result<Vec<u8>> {
        let body = match self {
            Compression::Zlib => return zlib(compressed, limit),
            Compression::Bzip2 => up_to(limit, bzip2::read::MultiBzDecoder::new(compressed)),
            Compression::Xz => xz(compressed, limit),
            Compression::Zstd => {
                zstd::stream::read::Decoder::with_buffer(compressed).and_then(|decoder| up_to(limit, decoder))
            }
            Compression::Brotli => up_to(limit, brotli::Decompressor::new(compressed, 4096)),
        };
        let body = body.map_err(|cause| self.corrupt().with_source(cause))?;
        if body.len() > limit { Err(self.too_large(limit)) } else { Ok(body) }
    }

    fn corrupt(self) -> Error {
        Error::new(ErrorKind::Decode, format!("the body is not complete and correct {}", self.header()))
    }

    fn too_large(self, limit: usize) -> Error {
        Error::new(
            ErrorKind::Decode,
            format!("the {} body is more than {limit} bytes when decompressed", self.header()),
        )
    }
}

fn named(name: &str) -> Option<Compression> {
    NAMES.iter().find(|(_, header, aliases)| *header == name || aliases.contains(&name)).map(|(found, ..)| *found)
}

/// Writes the whole of `body` to `to` and takes the bytes out of it.
fn all<W: Write>(
    mut to: W,
    body: &[u8],
    finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>,
) -> std::io::Result<Vec<u8>> {
    to.write_all(body)?;
    finish(to)
}

fn brotli(body: &[u8], out: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut encoder = brotli::CompressorWriter::new(out, 4096, BROTLI_QUALITY, BROTLI_WINDOW);
    encoder.write_all(body)?;
    Ok(encoder.into_inner())
}

/// Reads to the end, or one byte past `limit`.
fn up_to(limit: usize, from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(limit.saturating_add(1) as u64).read_to_end(&mut body)?;
    Ok(body)
}

fn xz(compressed: &[u8], limit: usize) -> std::io::Result<Vec<u8>> {
    let stream = liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
    up_to(limit, liblzma::read::XzDecoder::new_stream(compressed, stream))
}

/// Reads one zlib stream. The crate's reader takes the end of its input for the end of the stream, which would make a
/// truncated body a short one, so the stream's own end is looked for here; what follows it is ignored, as in Python.
fn zlib(compressed: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut stream = Decompress::new(true);
    let mut body = Vec::new();
    loop {
        body.reserve((body.len() / 2).clamp(4096, limit.max(4096)));
        let (read, written) = (stream.total_in(), stream.total_out());
        let rest = &compressed[usize::try_from(read).unwrap_or(usize::MAX).min(compressed.len())..];
        let status = stream
            .decompress_vec(rest, &mut body, FlushDecompress::None)
            .map_err(|cause| Compression::Zlib.corrupt().with_source(cause))?;
        if body.len() > limit {
            return Err(Compression::Zlib.too_large(limit));
        }
        match status {
            Status::StreamEnd => return Ok(body),
            _ if (stream.total_in(), stream.total_out()) == (read, written) => return Err(Compression::Zlib.corrupt()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 16;

    fn every() -> impl Iterator<Item = Compression> {
        NAMES.iter().map(|(compression, ..)| *compression)
    }

    fn check_refused(compression: Compression, compressed: &[u8], limit: usize) {
        let refused = compression.decompress(compressed, limit).map(|body| body.len()).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::Decode), "{compression:?}, {} bytes", compressed.len());
    }

    #[test]
    fn names() {
        for (compression, header, aliases) in NAMES {
            assert_eq!(compression.header(), header);
            for name in aliases.iter().chain([&header]) {
                assert_eq!(Compression::of_header(name).unwrap(), compression);
                assert_eq!(Compression::of_name(name).unwrap(), compression);
            }
        }
        assert_eq!(Compression::of_header("rot13").unwrap_err().kind(), ErrorKind::Decode);
        assert_eq!(Compression::of_name("").unwrap_err().kind(), ErrorKind::Configuration);
    }

    #[test]
    fn bodies_survive() {
        let noise: Vec<u8> = std::iter::repeat_with({
            let mut random = fastrand::Rng::with_seed(7);
            move || random.u8(..)
        })
        .take(100_000)
        .collect();
        for compression in every() {
            for body in [b"".as_slice(), b"[[2, 3], {}, null]", &[0; 50_000], &noise] {
                let compressed = compression.compress(body).unwrap();
                assert_eq!(compression.decompress(&compressed, body.len()).unwrap(), body, "{compression:?}");
            }
        }
    }

    #[test]
    fn the_limit_holds() {
        for compression in every() {
            let bomb = compression.compress(&vec![0; 16 * LIMIT]).unwrap();
            check_refused(compression, &bomb, LIMIT);
            check_refused(compression, &compression.compress(b"12345").unwrap(), 4);
        }
    }

    #[test]
    fn truncated_input_is_refused() {
        for compression in every() {
            let whole = compression.compress(b"some body, some body, some other body").unwrap();
            for length in 1..whole.len() {
                check_refused(compression, &whole[..length], LIMIT);
            }
        }
    }

    #[test]
    fn corrupt_input_is_refused() {
        for compression in every() {
            check_refused(compression, b"\xff\xfe not compressed at all", LIMIT);
            if compression != Compression::Bzip2 && compression != Compression::Zstd {
                check_refused(compression, b"", LIMIT);
            }
        }
        let mut damaged = Compression::Zlib.compress(b"some body").unwrap();
        damaged[8] ^= 0x55;
        check_refused(Compression::Zlib, &damaged, LIMIT);
    }

    /// Written by Python's `zlib`, `bz2` and `lzma`, as Kombu calls them, from `b"celeriac"`.
    #[test]
    fn what_python_wrote() {
        let rows = [
            (Compression::Zlib, "789c4b4ecd492dca4c4c06000e8c0339"),
            (
                Compression::Bzip2,
                "425a6839314159265359f052fab200000101802a241000200021800c02262ec38bb9229c284878297d5900",
            ),
            (
                Compression::Xz,
                "fd377a585a000004e6d6b4460200210116000000742fe5a301000763656c6572696163006ff4f246f5aac97d00012008bb19d9bb1fb6f37d010000000004595a",
            ),
        ];
        for (compression, hexadecimal) in rows {
            let compressed: Vec<u8> = (0..hexadecimal.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
                .collect();
            assert_eq!(compression.decompress(&compressed, 8).unwrap(), b"celeriac");
        }
    }
}
