//! [`Codec`]: results as bytes: serialized by `result_serializer`, compressed by `result_compression`.

use uuid::Uuid;

use super::{BackendOptions, ChordPart, EncodedPart, EncodedResult, StoreRequest};
use crate::protocol::{Compression, Map, MetaResult, ResultTuple, Serializer, State, TaskMeta, Value};
use crate::{Error, ErrorKind, Result};

/// What a compressed result begins with (celery/backends/base.py `COMPRESSED_PAYLOAD_MAGIC`); its content type and
/// another zero byte follow.
const COMPRESSED: &[u8] = b"\x00celery-compressed\x00";

/// How large a result may be, also after decompression: as large as a Redis string
/// (celery/backends/redis.py `RedisBackend._MAX_STR_VALUE_SIZE`).
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
        let compression = options.compression.as_deref().filter(|name| !name.is_empty());
        let compression = compression
            .map(Compression::of_name)
            .transpose()
            .map_err(|error| Error::new(error.kind(), format!("result_compression: {error}")))?;
        Ok(Codec { serializer: serializer(&options.serializer)?, compression })
    }

    /// How results are serialized.
    pub(super) fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// A result with its bytes; one without an id, or one too large to be stored, is an error of kind `Backend`.
    pub(super) fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        let meta = &request.meta;
        if meta.task_id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a result without a task id cannot be stored"));
        }
        let payload = self.sized(self.payload(meta)?, &meta.task_id)?;
        let (task_id, state) = (meta.task_id.clone(), meta.status.clone());
        Ok(EncodedResult { task_id, state, payload: payload.into(), reply_to: request.reply_to.clone() })
    }

    /// A part with its bytes, `[1, task_id, state, result]` (celery/backends/redis.py
    /// `RedisBackend.on_chord_part_return`), and with a token of its own.
    pub(super) fn encode_part(&self, part: &ChordPart) -> Result<EncodedPart> {
        let ChordPart { group_id, task_id, group_index, state, result } = part;
        if group_id.is_empty() || task_id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a part of a chord needs a task id and a group id"));
        }
        let result = match result {
            MetaResult::Value(value) => value.clone(),
            MetaResult::Exception(exception) => exception.to_map().into(),
        };
        let list = vec![Value::Int(1), task_id.as_str().into(), state.as_str().into(), result];
        let payload = self.compressed(self.serializer.encode(&Value::List(list))?)?;
        Ok(EncodedPart {
            group_id: group_id.clone(),
            task_id: task_id.clone(),
            group_index: *group_index,
            payload: self.sized(payload, task_id)?.into(),
            token: Uuid::new_v4().simple().to_string(),
        })
    }

    /// The member, its state and its result, from a part's bytes.
    pub(super) fn decode_part(&self, payload: &[u8]) -> Result<(String, State, MetaResult)> {
        let parts: Option<[Value; 4]> = self.value(payload)?.into_list().and_then(|parts| parts.try_into().ok());
        let malformed = || Error::new(ErrorKind::Decode, "a part of a chord is not [1, id, state, result]");
        let [_, task_id, state, result] = parts.ok_or_else(malformed)?;
        let (Some(task_id), Some(state)) = (task_id.into_string(), state.into_string()) else {
            return Err(malformed());
        };
        let state = State::from(state);
        let result = MetaResult::read(&state, result);
        Ok((task_id, state, result))
    }

    /// What is kept for a group, `{"result": [[id, parent], members]}` (celery/backends/base.py
    /// `BaseKeyValueStoreBackend._save_group`).
    pub(super) fn encode_group(&self, group: &ResultTuple) -> Result<Vec<u8>> {
        if group.id.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "a group without an id cannot be saved"));
        }
        let map = Map::from([("result", Value::from(group.clone()))]);
        self.sized(self.compressed(self.serializer.encode(&map.into())?)?, &group.id)
    }

    /// The group that stored bytes hold.
    pub(super) fn decode_group(&self, payload: &[u8]) -> Result<ResultTuple> {
        let value = self.value(payload)?;
        let is_none = || Error::new(ErrorKind::Decode, "a saved group has not the form of one");
        ResultTuple::try_from(value.as_map().and_then(|map| map.get("result")).ok_or_else(is_none)?)
    }

    fn payload(&self, meta: &TaskMeta) -> Result<Vec<u8>> {
        self.compressed(self.plain(meta)?)
    }

    fn compressed(&self, plain: Vec<u8>) -> Result<Vec<u8>> {
        let Some(compression) = self.compression else { return Ok(plain) };
        let compressed = compression.compress(&plain)?;
        Ok([COMPRESSED, compression.header().as_bytes(), b"\x00", &compressed].concat())
    }

    fn sized(&self, payload: Vec<u8>, id: &str) -> Result<Vec<u8>> {
        if payload.len() > LARGEST {
            let message = format!("the result of {id} is too large to be stored: {} bytes", payload.len());
            return Err(Error::new(ErrorKind::Backend, message));
        }
        Ok(payload)
    }

    fn plain(&self, meta: &TaskMeta) -> Result<Vec<u8>> {
        if self.serializer != Serializer::Json {
            return self.serializer.encode(&Value::Map(meta.to_map()));
        }
        let mut out = Vec::with_capacity(256);
        meta.write_json(&mut out).map(|()| out)
    }

    /// The meta that stored bytes hold, compressed or not.
    pub(super) fn decode(&self, payload: &[u8]) -> Result<TaskMeta> {
        let is_none = || Error::new(ErrorKind::Decode, "a stored result has not the form of one");
        TaskMeta::from_map(self.value(payload)?.into_map().ok_or_else(is_none)?)
    }

    fn value(&self, payload: &[u8]) -> Result<Value> {
        let Some(compressed) = payload.strip_prefix(COMPRESSED) else {
            return self.serializer.decode(payload);
        };
        let (content_type, body) = split_at_zero(compressed);
        let content_type = String::from_utf8_lossy(content_type);
        self.serializer.decode(&Compression::of_header(&content_type)?.decompress(body, LARGEST)?)
    }
}

/// The serializer that `result_serializer` names. `raw` has no form for a dict.
fn serializer(name: &str) -> Result<Serializer> {
    match Serializer::from_name(name) {
        Ok(Serializer::Raw) => {
            Err(Error::new(ErrorKind::Configuration, "result_serializer: raw cannot write results: use json"))
        }
        found => found.map_err(|error| Error::new(error.kind(), format!("result_serializer: {error}"))),
    }
}

fn split_at_zero(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::State;

    fn codec(serializer: &str, compression: Option<&str>) -> Result<Codec> {
        let compression = compression.map(str::to_owned);
        Codec::new(&BackendOptions { serializer: serializer.into(), compression, ..Default::default() })
    }

    fn request() -> StoreRequest {
        StoreRequest { meta: TaskMeta::new("an-id", State::Success, Value::from("x".repeat(100))), reply_to: None }
    }

    #[test]
    fn what_is_encoded_is_decoded_and_compressed_results_say_how() {
        for serializer in ["json", "application/json", "msgpack"] {
            for compression in [None, Some("gzip"), Some("bzip2"), Some("lzma"), Some("brotli"), Some("zstd")] {
                let codec = codec(serializer, compression).unwrap();
                let encoded = codec.encode(&request()).unwrap();
                assert_eq!(codec.decode(&encoded.payload).unwrap(), request().meta, "{serializer} {compression:?}");
                assert_eq!(encoded.payload.starts_with(COMPRESSED), compression.is_some());
            }
        }
        let gzip = codec("json", Some("zlib")).unwrap().encode(&request()).unwrap();
        assert!(gzip.payload.starts_with(b"\x00celery-compressed\x00application/x-gzip\x00\x78"));
        assert_eq!(codec("json", None).unwrap().decode(&gzip.payload).unwrap(), request().meta);
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let rows = [
            ("pickle", None, ErrorKind::Refused, "result_serializer: the serializer \"pickle\" is refused"),
            ("toml", None, ErrorKind::Configuration, "result_serializer: "),
            ("raw", None, ErrorKind::Configuration, "result_serializer: raw"),
            ("json", Some("snappy"), ErrorKind::Configuration, "result_compression: "),
        ];
        for (serializer, compression, kind, begins) in rows {
            let error = codec(serializer, compression).unwrap_err();
            assert!(error.kind() == kind && error.to_string().starts_with(begins), "{error:?}");
        }
    }

    #[test]
    fn stored_bytes_that_are_no_result_are_errors() {
        let codec = codec("json", None).unwrap();
        let rows: [&[u8]; 8] = [
            b"",
            b"[]",
            b"{}",
            b"\x80\x04K\x01.",
            b"\x00celery-compressed\x00",
            b"\x00celery-compressed\x00application/x-gzip",
            b"\x00celery-compressed\x00application/x-gzip\x00not zlib",
            b"\x00celery-compressed\x00application/x-unknown\x00{}",
        ];
        for bytes in rows {
            assert_eq!(codec.decode(bytes).unwrap_err().kind(), ErrorKind::Decode, "{bytes:?}");
        }
    }

    #[test]
    fn a_result_needs_an_id() {
        let request = StoreRequest { meta: TaskMeta::new("", State::Success, Value::Null), reply_to: None };
        assert_eq!(codec("json", None).unwrap().encode(&request).unwrap_err().kind(), ErrorKind::Backend);
    }
}
