//! What holds for every value and every sequence of bytes: codecs give back what they were given, and hostile input is an
//! error and never a panic.

use bytes::Bytes;
use celeriac::protocol::repr::{Limits, argsrepr, repr, saferepr};
use celeriac::protocol::{
    AcceptContent, Body, Compression, DateTime, Embed, Map, Message, OutgoingTask, Properties, Serializer, State,
    TaskHeaders, TaskMeta, Time, Value, deserialize, envelope, from_value, json, to_value,
};
use jiff::{civil, tz::Offset};
use proptest::collection::vec;
use proptest::prelude::*;

fn dates() -> impl Strategy<Value = civil::Date> {
    (1i16..=9999, 1i8..=12, 1i8..=28).prop_map(|(year, month, day)| civil::date(year, month, day))
}

fn times() -> impl Strategy<Value = civil::Time> {
    (0i8..24, 0i8..60, 0i8..60, prop_oneof![Just(0), 0i32..1_000_000])
        .prop_map(|(hour, minute, second, micro)| civil::time(hour, minute, second, micro * 1000))
}

fn offsets() -> impl Strategy<Value = Option<Offset>> {
    proptest::option::of((-86_399i32..=86_399).prop_map(|seconds| Offset::from_seconds(seconds).expect("below a day")))
}

fn datetimes() -> impl Strategy<Value = DateTime> {
    (dates(), times(), offsets()).prop_map(|(date, time, offset)| DateTime { civil: date.to_datetime(time), offset })
}

/// Kinds that every serializer has a form for. NaN is left out, since it equals nothing.
fn plain_scalars() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-9i64..10).prop_map(Value::from),
        any::<f64>().prop_filter("NaN equals nothing", |number| !number.is_nan()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
    ]
    .boxed()
}

/// Every kind.
fn scalars() -> BoxedStrategy<Value> {
    prop_oneof![
        4 => plain_scalars(),
        1 => any::<i128>().prop_map(Value::from),
        1 => datetimes().prop_map(Value::from),
        1 => dates().prop_map(Value::from),
        1 => (times(), offsets()).prop_map(|(civil, offset)| Value::Time(Time { civil, offset })),
        1 => "-?[0-9]{1,20}(\\.[0-9]{1,20})?(E[+-][0-9]{1,3})?".prop_map(Value::Decimal),
        1 => any::<u128>().prop_map(|number| uuid::Uuid::from_u128(number).into()),
    ]
    .boxed()
}

fn nested(scalars: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let deeper = |inner: BoxedStrategy<Value>| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            vec((".{0,6}", inner), 0..6).prop_map(|pairs| Value::Map(pairs.into_iter().collect())),
        ]
    };
    scalars.prop_recursive(5, 40, 6, deeper).boxed()
}

fn maps() -> impl Strategy<Value = Map> {
    vec(("[a-z_-]{1,12}", nested(scalars())), 0..40).prop_map(|pairs| pairs.into_iter().collect())
}

fn properties() -> impl Strategy<Value = Properties> {
    let text = || proptest::option::of(any::<String>());
    let numbers = (proptest::option::of(any::<u8>()), proptest::option::of(any::<i64>()), any::<bool>());
    (text(), text(), text(), text(), text(), numbers, nested(scalars())).prop_map(
        |(correlation_id, reply_to, expiration, exchange, routing_key, (delivery_mode, priority, redelivered), odd)| {
            Properties {
                correlation_id,
                reply_to,
                delivery_mode,
                // An envelope always has a priority.
                priority: priority.or(Some(0)),
                expiration,
                exchange,
                routing_key,
                redelivered,
                other: Map::from([("x-odd", odd)]),
            }
        },
    )
}

fn messages() -> impl Strategy<Value = Message> {
    let text = || proptest::option::of(any::<String>());
    (maps(), properties(), text(), text(), vec(any::<u8>(), 0..100)).prop_map(
        |(headers, properties, content_type, content_encoding, body)| Message {
            headers,
            properties,
            content_type,
            content_encoding,
            body: body.into(),
        },
    )
}

/// Bytes with some of them changed, and cut short.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = bytes.len();
    (vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 0..=length).prop_map(move |(changes, length)| {
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.truncate(length);
        bytes
    })
}

fn enveloped(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    envelope::write(message, "tag", &mut out).expect("no value is nested too deeply");
    out
}

/// A quarter of the cases that are asked for (256 unless `PROPTEST_CASES` says otherwise), since each of them tries a whole
/// tree of values.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.div_ceil(4), ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn json_gives_back_every_value(value in nested(scalars())) {
        let text = json::to_vec(&value).unwrap();
        prop_assert!(text.is_ascii());
        let read = json::parse(&text).unwrap();
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(json::to_vec(&read).unwrap(), text);
    }

    #[test]
    fn json_reads_what_another_writer_writes(value in nested(plain_scalars())) {
        let text = serde_json::to_vec(&value).unwrap();
        // What is beyond JSON comes back as serde_json writes it; only that it is read can be asked of it.
        prop_assert!(json::parse(&text).is_ok());
    }

    #[test]
    fn msgpack_and_yaml_give_back_plain_values(value in nested(plain_scalars())) {
        for serializer in [Serializer::Msgpack, Serializer::Yaml] {
            let bytes = serializer.encode(&value).unwrap();
            let read = serializer.decode(&bytes);
            prop_assert_eq!(read.as_ref().ok(), Some(&value), "{:?} {:?}", serializer, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn damaged_content_is_read_or_refused(
        bytes in nested(plain_scalars()).prop_flat_map(|value| {
            let written = [Serializer::Json, Serializer::Msgpack, Serializer::Yaml].map(|serializer| serializer.encode(&value).unwrap());
            prop::sample::select(written.to_vec()).prop_flat_map(damaged)
        })
    ) {
        let accept = AcceptContent::new(["json", "msgpack", "yaml", "x/y"]).unwrap();
        for content_type in ["application/json", "application/x-msgpack", "application/x-yaml", "x/y"] {
            if let Err(error) = deserialize(&bytes, Some(content_type), None, &accept) {
                prop_assert!(error.is_bad_message());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        for serializer in [Serializer::Json, Serializer::Msgpack, Serializer::Yaml] {
            let _ = serializer.decode(&bytes);
        }
        let _ = envelope::parse(&bytes);
        let _ = envelope::redeliver(&bytes);
        for compression in [Compression::Zlib, Compression::Bzip2, Compression::Xz, Compression::Zstd, Compression::Brotli] {
            let _ = compression.decompress(&bytes, 1 << 16);
        }
    }

    #[test]
    fn compressions_give_back_bytes(bytes in vec(any::<u8>(), 0..2000)) {
        for compression in [Compression::Zlib, Compression::Bzip2, Compression::Xz, Compression::Zstd, Compression::Brotli] {
            let compressed = compression.compress(&bytes).unwrap();
            prop_assert_eq!(compression.decompress(&compressed, bytes.len()).unwrap(), bytes.clone(), "{:?}", compression);
        }
    }

    #[test]
    fn times_are_their_text(datetime in datetimes(), time in times(), offset in offsets()) {
        prop_assert_eq!(datetime.to_string().parse::<DateTime>().unwrap(), datetime);
        let time = Time { civil: time, offset };
        prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        let _ = datetime.timestamp();
    }

    #[test]
    fn any_text_is_a_time_or_none(text in any::<String>(), likely in "[0-9TWZ:., +-]{0,30}") {
        for text in [text, likely] {
            if let Ok(datetime) = text.parse::<DateTime>() {
                let _ = datetime.timestamp();
                prop_assert_eq!(datetime.to_string().parse::<DateTime>().unwrap(), datetime);
            }
        }
    }

    #[test]
    fn envelopes_give_back_messages(message in messages()) {
        prop_assert_eq!(envelope::parse(&enveloped(&message)).unwrap(), message);
    }

    #[test]
    fn damaged_envelopes_are_read_or_refused(bytes in messages().prop_flat_map(|message| damaged(enveloped(&message)))) {
        if let Err(error) = envelope::parse(&bytes) {
            prop_assert!(error.is_bad_message());
        }
        let _ = envelope::redeliver(&bytes);
    }

    #[test]
    fn redelivery_changes_the_marks_alone(message in messages()) {
        let redelivery = envelope::redeliver(&enveloped(&message)).unwrap();
        let read = envelope::parse(&redelivery.envelope).unwrap();
        let mut expected = message.clone();
        expected.headers.insert("redelivered", true);
        expected.properties.redelivered = true;
        prop_assert_eq!(read, expected);
        prop_assert_eq!(i64::from(redelivery.priority), message.properties.priority.unwrap_or(0).clamp(0, 9));
        prop_assert_eq!(envelope::redeliver(&redelivery.envelope).unwrap(), redelivery);
    }

    #[test]
    fn serde_passes_every_value(value in nested(scalars())) {
        prop_assert_eq!(to_value(&value).unwrap(), value.clone());
        prop_assert_eq!(from_value::<Value>(value.clone()).unwrap(), value);
    }

    #[test]
    fn metas_are_given_back(result in nested(scalars()), date_done in proptest::option::of(datetimes()), extended in maps()) {
        let mut meta = TaskMeta::new("id", State::Success, result);
        meta.date_done = date_done;
        meta.extended = extended;
        let mut text = Vec::new();
        meta.write_json(&mut text).unwrap();
        let read = json::parse(&text).unwrap().into_map().unwrap();
        prop_assert_eq!(json::to_vec(&meta.to_map().into()).unwrap(), text);
        prop_assert_eq!(TaskMeta::from_map(read).unwrap(), meta);
    }

    #[test]
    fn what_is_sent_is_what_is_read(args in vec(nested(scalars()), 0..4), kwargs in maps(), retries in any::<u32>(), eta in datetimes()) {
        let body = Body { args, kwargs, embed: Embed::default() };
        let call = OutgoingTask { body: body.clone(), retries, eta: eta.into(), ..OutgoingTask::new("t", "i", vec![]) };
        let message = envelope::parse(&enveloped(&call.into_message().unwrap())).unwrap();
        prop_assert_eq!(Body::read(message.payload(&AcceptContent::default()).unwrap()).unwrap(), body);
        match TaskHeaders::read(&message.headers) {
            Ok(headers) => prop_assert_eq!((headers.retries, headers.eta), (retries, eta.timestamp().ok())),
            // The first and last hours of Python's years are none in UTC.
            Err(_) => prop_assert!(eta.timestamp().is_err()),
        }
    }

    #[test]
    fn any_headers_are_read_or_refused(mut headers in maps(), odd in nested(scalars()), name in "task|id|eta|expires|timelimit|retries") {
        headers.extend([("task", "t"), ("id", "i")]);
        headers.insert(name, odd);
        let _ = TaskHeaders::read(&headers);
    }

    #[test]
    fn shortened_text_stays_near_its_limit(values in vec(nested(scalars()), 0..5), length in 1usize..200, levels in 0usize..6) {
        let limits = Limits { length: Some(length), levels };
        // A token that is begun within the limit is finished: quotes and escapes, or the mark of what was cut, come on
        // top, twice for what stands in a key and in its value, and with them the brackets that are open.
        let shown = argsrepr(&values, limits);
        prop_assert!(shown.chars().count() <= 3 * length + 60, "{}", shown);
        prop_assert!(shown.starts_with('('));
        prop_assert!(shown.ends_with(')'));
        for value in &values {
            let _ = (repr(value), saferepr(value, Limits { length: None, levels }));
        }
    }
}

#[test]
fn nesting_up_to_the_limit_needs_little_stack() {
    let text = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    // The least that a runtime's threads have.
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let value = json::parse(&text(1000)).unwrap();
        let copy = value.clone();
        assert_eq!(copy, value);
        assert_eq!(json::to_vec(&value).unwrap(), text(1000));
        assert_eq!(from_value::<Value>(copy).unwrap(), value);
        assert_eq!(repr(&value).len(), 2000);
        assert_eq!(saferepr(&value, Limits { length: None, levels: 0 }).len(), 2000);
        assert!(to_value(&value).is_err());
        for (serializer, depth) in [(Serializer::Msgpack, 511), (Serializer::Yaml, 255)] {
            assert!(serializer.encode(&value).is_err());
            let value = json::parse(&text(depth)).unwrap();
            let written = serializer.encode(&value).unwrap();
            assert_eq!(serializer.decode(&written).unwrap(), value);
        }
        assert!(json::parse(&text(1001)).is_err());
        let message = Message { body: Bytes::from(text(1_000_000)), ..Message::default() };
        assert!(
            Message { content_type: Some("application/json".into()), ..message }
                .payload(&AcceptContent::default())
                .is_err()
        );
    });
    thread.unwrap().join().unwrap();
}
