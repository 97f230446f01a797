//! [`Codec`]: results as bytes: serialized by `result_serializer`, compressed by `result_compression`.

use super::shape::{self, Serializer};
use super::{BackendOptions, EncodedResult, StoreRequest};
use crate::protocol::{Compression, TaskMeta};
use crate::{Error, ErrorKind, Result};

/// What a compressed result begins with (celery/backends/base.py `COMPRESSED_PAYLOAD_MAGIC`); its content type and
/// another zero byte follow.
const COMPRESSED: &[u8] = b"\x00celery-compressed\x00";

/// How large a decompressed result may be: as large as Redis lets an uncompressed one be.
const LARGEST: usize = 512 << 20;

/// How results become bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codec {
    serializer: Serializer,
    compression: Option<Compression>,
}

impl Codec {
    /// The codec that the options ask for; pickle is refused by name.
    pub(super) fn new(options: &BackendOptions) -> Result<Self> {
        let serializer = Serializer::of_name(&options.serializer).map_err(|error| named("result_serializer", error))?;
        let compression = options.compression.as_deref().filter(|name| !name.is_empty());
        let compression = compression.map(Compression::of_name).transpose();
        Ok(Codec { serializer, compression: compression.map_err(|error| named("result_compression", error))? })
    }

    /// A result with its bytes; one without an id, or one too large to be stored, is an error of kind `Backend`.
    pub(super) fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        let meta = &request.meta;
        if meta.task_id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a result without a task id cannot be stored"));
        }
        let payload = self.payload(meta)?;
        if payload.len() > LARGEST {
            let message = format!("the result of {} is too large to be stored: {} bytes", meta.task_id, payload.len());
            return Err(Error::new(ErrorKind::Backend, message));
        }
        let (task_id, state) = (meta.task_id.clone(), meta.status.clone());
        Ok(EncodedResult { task_id, state, payload: payload.into(), reply_to: request.reply_to.clone() })
    }

    fn payload(&self, meta: &TaskMeta) -> Result<Vec<u8>> {
        let plain = shape::encode(meta, self.serializer)?;
        let Some(compression) = self.compression else { return Ok(plain) };
        let compressed = compression.compress(&plain)?;
        Ok([COMPRESSED, compression.header().as_bytes(), b"\x00", &compressed].concat())
    }

    /// The meta that stored bytes hold, compressed or not.
    pub(super) fn decode(&self, payload: &[u8]) -> Result<TaskMeta> {
        let Some(compressed) = payload.strip_prefix(COMPRESSED) else {
            return shape::decode(payload, self.serializer);
        };
        let (content_type, body) = split_at_zero(compressed);
        let content_type = String::from_utf8_lossy(content_type);
        let plain = Compression::of_header(&content_type)?.decompress(body, LARGEST)?;
        shape::decode(&plain, self.serializer)
    }
}

fn split_at_zero(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

fn named(setting: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("{setting}: {error}"))
}
