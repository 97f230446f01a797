//! Every golden message in `protocol-fixtures/` is read as the newest Celery reads it, and is written again as it was.

#![allow(clippy::unwrap_used, reason = "a fixture that is not as its README says fails the test")]

#[path = "fixtures/file.rs"]
mod file;
#[path = "fixtures/typed.rs"]
mod typed;

use celeriac::ErrorKind;
use celeriac::protocol::repr::{Limits, argsrepr, kwargsrepr};
use celeriac::protocol::{
    AcceptContent, Body, Compression, Message, MetaResult, ResultTuple, Serializer, Signature, TaskHeaders, TaskMeta,
    Value, deserialize, envelope, json,
};
use file::{Fixture, Recorded, fixtures, index};
use serde_json::Value as Json;
use typed::{same, value};

/// What a check finds wrong with one recorded piece.
type Checked<T = ()> = std::result::Result<T, String>;

/// More than any fixture's body.
const BODY_LIMIT: usize = 1 << 20;

/// What stands before a compressed meta (celery/backends/base.py `Backend.encode`).
const COMPRESSED: &[u8] = b"\0celery-compressed\0";

/// A version later than any.
const EVERY: (u32, u32) = (u32::MAX, 0);

/// What is meant to differ from the bytes that Celery wrote: what is written, the case, the version that no longer
/// differs, and why. Whatever is not named here is written byte for byte.
const MEANT: [(&str, &str, (u32, u32), &str); 12] = [
    ("kwargsrepr", "chunks", EVERY, "the repr shows tuples, which JSON sends as lists"),
    ("kwargsrepr", "map", EVERY, "the repr shows tuples, which JSON sends as lists"),
    ("argsrepr", "json-keys", EVERY, "the repr shows keys that are not text, which JSON sends as text"),
    ("argsrepr", "json-times", (5, 3), "old producers send times as text"),
    ("argsrepr", "json-decimals", (5, 3), "old producers send decimals as text"),
    ("argsrepr", "json-uuids", (5, 3), "old producers send UUIDs as text"),
    ("restored", "unacked", (5, 1), "old Kombu marks only the headers as redelivered, not the delivery info"),
    ("body", "yaml", EVERY, "YAML is written in one line, which reads the same"),
    ("body", "yaml-aliases", EVERY, "YAML is written in one line, which reads the same"),
    ("body", "yaml-floats", EVERY, "YAML is written in one line, which reads the same"),
    ("body", "yaml-times", EVERY, "YAML is written in one line, which reads the same"),
    ("body", "yaml-zlib", EVERY, "YAML is written in one line, which reads the same"),
];

fn is_meant(what: &str, fixture: &Fixture) -> bool {
    let (case, version) = (fixture.case(), fixture.version());
    MEANT.iter().any(|(meant, of_case, until, _)| (*meant, *of_case) == (what, case) && version < *until)
}

/// Calls `check` with every piece under a key of every fixture, and shows all that are wrong at once.
fn check_all(under: &str, check: impl Fn(&Fixture, &Recorded<'_>) -> Checked) {
    let (mut checked, mut wrong) = (0, Vec::new());
    for fixture in fixtures() {
        for piece in fixture.recorded(under) {
            checked += 1;
            wrong.extend(check(&fixture, &piece).err().map(|why| format!("{}: {why}", piece.name)));
        }
    }
    assert!(checked > 0, "no fixture has {under}");
    assert!(wrong.is_empty(), "{} of {checked} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn ensure_same(what: &str, found: &Value, expected: &Value) -> Checked {
    match same(found, expected) {
        true => Ok(()),
        false => Err(format!("{what}\n   is {found:?}\n  not {expected:?}")),
    }
}

fn ensure_bytes(what: &str, fixture: &Fixture, written: &[u8], read: &[u8]) -> Checked {
    let text = String::from_utf8_lossy;
    match (written == read, is_meant(what, fixture)) {
        (true, false) | (false, true) => Ok(()),
        (false, false) => Err(format!("{what}\n   is {}\n  not {}", text(written), text(read))),
        (true, true) => Err(format!("{what} no longer differs: take it out of the table")),
    }
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn message(piece: &Recorded<'_>) -> Checked<Message> {
    envelope::parse(&piece.raw).map_err(shown)
}

fn accept() -> AcceptContent {
    AcceptContent::new(["json", "msgpack", "yaml", "pickle", "text/plain"]).unwrap()
}

/// The serialised body, no longer compressed.
fn serialized(message: &Message) -> Checked<Vec<u8>> {
    match message.headers.get("compression").and_then(Value::as_str) {
        None => Ok(message.body.to_vec()),
        Some(header) => {
            Compression::of_header(header).and_then(|by| by.decompress(&message.body, BODY_LIMIT)).map_err(shown)
        }
    }
}

fn decoded(message: &Message) -> celeriac::Result<Value> {
    let (content_type, content_encoding) = (message.content_type.as_deref(), message.content_encoding.as_deref());
    deserialize(&serialized(message).unwrap(), content_type, content_encoding, &accept())
}

#[test]
fn every_recorded_case_is_here() {
    let index = index();
    let fixtures = fixtures();
    for (version, about) in index.as_object().unwrap() {
        let folder = format!("celery-{version}/");
        let found = fixtures.iter().filter(|fixture| fixture.name.starts_with(&folder)).count();
        assert_eq!(Some(found as u64), about["cases"].as_u64(), "{version}");
    }
    let all: u64 = index.as_object().unwrap().values().map(|about| about["cases"].as_u64().unwrap()).sum();
    assert_eq!(fixtures.len() as u64, all);
}

#[test]
fn headers_and_properties_are_read() {
    check_all("messages", |_, piece| {
        let message = message(piece)?;
        let raw: Json = serde_json::from_slice(&piece.raw).unwrap();
        ensure_same("headers", &message.headers.into(), &value(&raw["headers"]))?;
        let (written, info) = (&raw["properties"], &raw["properties"]["delivery_info"]);
        let properties = message.properties;
        let fields: [(&str, Value, &Json); 9] = [
            ("content-type", message.content_type.into(), &raw["content-type"]),
            ("content-encoding", message.content_encoding.into(), &raw["content-encoding"]),
            ("correlation_id", properties.correlation_id.into(), &written["correlation_id"]),
            ("reply_to", properties.reply_to.into(), &written["reply_to"]),
            ("delivery_mode", properties.delivery_mode.into(), &written["delivery_mode"]),
            ("priority", properties.priority.into(), &written["priority"]),
            ("expiration", properties.expiration.into(), &written["expiration"]),
            ("exchange", properties.exchange.into(), &info["exchange"]),
            ("routing_key", properties.routing_key.into(), &info["routing_key"]),
        ];
        fields.into_iter().try_for_each(|(name, found, expected)| ensure_same(name, &found, &value(expected)))
    });
}

#[test]
fn bodies_are_read() {
    check_all("messages", |_, piece| {
        let message = message(piece)?;
        if piece.expect.get("refused").is_some() {
            let refused = decoded(&message).err().map(|error| error.kind());
            return if refused == Some(ErrorKind::Refused) { Ok(()) } else { Err("is not refused".into()) };
        }
        let decoded = decoded(&message).map_err(shown)?;
        match piece.expect.get("payload") {
            Some(payload) => check_payload(&message, decoded, payload),
            None => check_body(Body::read(decoded).map_err(shown)?, piece.expect),
        }
    });
}

fn check_body(body: Body, expect: &Json) -> Checked {
    ensure_same("args", &body.args.into(), &value(&expect["args"]))?;
    ensure_same("kwargs", &body.kwargs.into(), &value(&expect["kwargs"]))?;
    let embed = body.embed;
    let named =
        [("callbacks", embed.callbacks), ("errbacks", embed.errbacks), ("chain", embed.chain), ("chord", embed.chord)];
    named.into_iter().try_for_each(|(name, found)| {
        let expected = Some(value(&expect["embed"][name])).filter(Value::is_truthy);
        ensure_same(name, &found.into(), &expected.into())
    })
}

/// A body that is not a triple: version 1, or content that no serializer made.
fn check_payload(message: &Message, decoded: Value, payload: &Json) -> Checked {
    ensure_same("payload", &decoded, &value(payload))?;
    match Body::read_version_1(decoded, &message.headers).map_err(shown)? {
        Some((headers, body)) => {
            for name in ["task", "id", "eta", "expires", "retries", "timelimit"] {
                let found = headers.get(name).cloned().unwrap_or_default();
                ensure_same(name, &found, &value(&payload[name]))?;
            }
            TaskHeaders::read(&headers).map_err(shown)?;
            let embed = ["callbacks", "errbacks", "chord"].map(|name| (name.to_owned(), payload[name].clone()));
            let embed = Json::Object(embed.into_iter().collect());
            check_body(body, &serde_json::json!({"args": payload["args"], "kwargs": payload["kwargs"], "embed": embed}))
        }
        None if payload.get("task").is_none() => Ok(()),
        None => Err("version 1 is not recognised".into()),
    }
}

#[test]
fn bodies_are_written_again() {
    check_all("messages", |fixture, piece| {
        let message = message(piece)?;
        let Ok(decoded) = decoded(&message) else { return Ok(()) };
        let Some(serializer) = message.content_type.as_deref().and_then(|name| Serializer::from_name(name).ok()) else {
            return Ok(());
        };
        let written = serializer.encode(&decoded).map_err(shown)?;
        ensure_same("read again", &serializer.decode(&written).map_err(shown)?, &decoded)?;
        ensure_bytes("body", fixture, &written, &serialized(&message)?)
    });
}

#[test]
fn compressed_bodies_are_written_again() {
    check_all("messages", |_, piece| {
        let message = message(piece)?;
        let Some(header) = message.headers.get("compression").and_then(Value::as_str) else { return Ok(()) };
        let body = serialized(&message)?;
        let compression = Compression::of_header(header).map_err(shown)?;
        let compressed = compression.compress(&body).map_err(shown)?;
        let again = compression.decompress(&compressed, BODY_LIMIT).map_err(shown)?;
        if again == body { Ok(()) } else { Err("the body changed".into()) }
    });
}

#[test]
fn envelopes_are_written_again() {
    check_all("messages", |fixture, piece| {
        let raw: Json = serde_json::from_slice(&piece.raw).unwrap();
        let tag = raw["properties"]["delivery_tag"].as_str().unwrap();
        let mut written = Vec::new();
        envelope::write(&message(piece)?, tag, &mut written).map_err(shown)?;
        let again: Json = serde_json::from_slice(&written).map_err(shown)?;
        ensure_same("the meaning", &value(&again), &value(&raw))?;
        ensure_bytes("envelope", fixture, &written, &piece.raw)
    });
}

#[test]
fn argument_reprs_are_celerys() {
    check_all("messages", |fixture, piece| {
        let message = message(piece)?;
        let Some(recorded) = message.headers.get("argsrepr").and_then(Value::as_str) else { return Ok(()) };
        let Ok(body) = decoded(&message) else { return Ok(()) };
        let body = Body::read(body).map_err(shown)?;
        ensure_bytes("argsrepr", fixture, argsrepr(&body.args, Limits::default()).as_bytes(), recorded.as_bytes())?;
        let recorded = message.headers.get("kwargsrepr").and_then(Value::as_str).unwrap();
        ensure_bytes("kwargsrepr", fixture, kwargsrepr(&body.kwargs, Limits::default()).as_bytes(), recorded.as_bytes())
    });
}

#[test]
fn signatures_are_read_and_written_again() {
    check_all("messages", |_, piece| {
        let Ok(Ok(body)) = decoded(&message(piece)?).map(Body::read) else { return Ok(()) };
        let lists = [body.embed.callbacks, body.embed.errbacks, body.embed.chain];
        let listed = lists.into_iter().flatten().filter_map(Value::into_list).flatten();
        listed.chain(body.embed.chord).try_for_each(|recorded| {
            let signature = Signature::try_from(recorded.clone()).map_err(shown)?;
            ensure_same("signature", &signature.into(), &recorded)
        })
    });
}

/// The instants and limits that the calls ask for; the clock of every recording stands still.
#[test]
fn times_and_limits_are_what_the_caller_asked_for() {
    let asked = |fixture: &Fixture| -> Option<TaskHeaders> {
        let piece = fixture.recorded("messages").next()?;
        TaskHeaders::read(&message(&piece).unwrap().headers).ok()
    };
    let at = |text: &str| Some(text.parse().unwrap());
    let check = |case: &str, is_right: &dyn Fn(&TaskHeaders) -> bool| {
        let fixtures: Vec<_> = fixtures().into_iter().filter(|fixture| fixture.case() == case).collect();
        assert_eq!(fixtures.len(), index().as_object().unwrap().len(), "{case} in every version");
        for fixture in fixtures {
            let headers = asked(&fixture).unwrap();
            assert!(is_right(&headers), "{}: {headers:?}", fixture.name);
        }
    };
    check("plain", &|headers| headers.eta.is_none() && headers.expires.is_none() && headers.time_limit.is_none());
    check("countdown", &|headers| headers.eta == at("2026-01-02T03:05:35.678901Z"));
    check("countdown-berlin", &|headers| headers.eta == at("2026-01-02T03:05:35.678901Z"));
    check("eta-naive", &|headers| headers.eta == at("2035-06-07T08:09:10.123456Z"));
    check("eta-aware", &|headers| headers.eta == at("2035-06-07T08:09:10Z"));
    check("eta-aware-offset", &|headers| headers.eta == at("2035-06-07T06:09:10Z"));
    check("expires-seconds", &|headers| headers.expires == at("2026-01-02T03:05:05.678901Z"));
    check("expires-past", &|headers| headers.expires == at("2001-06-07T08:09:10Z"));
    check("time-limits", &|headers| {
        let seconds = [headers.time_limit, headers.soft_time_limit].map(|limit| limit.unwrap().as_secs_f64());
        seconds == [30.0, 2.5]
    });
    check("options", &|headers| {
        (headers.id.as_str(), headers.shadow.as_deref(), headers.retries) == ("my id/ü", Some("shown as"), 2)
    });
}

#[test]
fn stored_metas_are_read_and_written_again() {
    check_all("stored", |fixture, piece| {
        let text = meta_text(&piece.raw);
        let map = json::parse(&text).map_err(shown)?.into_map().ok_or("is no map")?;
        if map.get("status").is_none() {
            return check_group(fixture, map.get("result").ok_or("has no result")?, piece.expect);
        }
        let meta = TaskMeta::from_map(map).map_err(shown)?;
        check_meta(&meta, piece.expect)?;
        let mut written = Vec::new();
        meta.write_json(&mut written).map_err(shown)?;
        ensure_bytes("meta", fixture, &written, &text)
    });
}

/// The JSON text of a meta, which `result_compression` compresses.
fn meta_text(raw: &[u8]) -> Vec<u8> {
    let Some(rest) = raw.strip_prefix(COMPRESSED) else { return raw.to_vec() };
    let end = rest.iter().position(|byte| *byte == 0).unwrap();
    let compression = Compression::of_header(std::str::from_utf8(&rest[..end]).unwrap()).unwrap();
    compression.decompress(&rest[end + 1..], BODY_LIMIT).unwrap()
}

fn check_meta(meta: &TaskMeta, expect: &Json) -> Checked {
    let expected = |name: &str| value(&expect[name]);
    let result = match &meta.result {
        MetaResult::Value(found) => found.clone(),
        MetaResult::Exception(exception) => {
            assert!(["FAILURE", "RETRY", "REVOKED"].contains(&meta.status.as_str()));
            exception.to_map().into()
        }
    };
    ensure_same("status", &meta.status.as_str().into(), &expected("status"))?;
    ensure_same("result", &result, &expected("result"))?;
    ensure_same("task_id", &meta.task_id.as_str().into(), &expected("task_id"))?;
    ensure_same("children", &meta.children.clone().into(), &expected("children"))?;
    ensure_same("date_done", &meta.date_done.map(|moment| moment.to_string()).into(), &expected("date_done"))?;
    ensure_same("group_id", &meta.group_id.clone().into(), &expected("group_id"))?;
    ensure_same("parent_id", &meta.parent_id.clone().into(), &expected("parent_id"))?;
    for name in ["name", "args", "kwargs", "worker", "retries", "queue", "stamped_headers", "tenant"] {
        ensure_same(name, &meta.extended.get(name).cloned().into(), &expected(name))?;
    }
    Ok(())
}

fn check_group(fixture: &Fixture, result: &Value, expect: &Json) -> Checked {
    assert_eq!(fixture.case(), "group-saved");
    ensure_same("result", result, &value(&expect["result"]))?;
    let tuple = ResultTuple::try_from(result).map_err(shown)?;
    assert_eq!(tuple.children.as_ref().map(Vec::len), Some(3));
    ensure_same("result tuple", &tuple.into(), result)
}

/// What stock keeps in `unacked`, and what it makes of it when it gives the message back.
#[test]
fn unacknowledged_messages_are_given_back_as_kombu_does() {
    check_all("unacked", |fixture, piece| {
        let items = json::parse(&piece.raw).map_err(shown)?.into_list().unwrap_or_default();
        let [envelope, exchange, routing_key] = <[Value; 3]>::try_from(items).map_err(|_| "is no triple")?;
        ensure_same("exchange", &exchange, &value(&piece.expect["exchange"]))?;
        ensure_same("routing key", &routing_key, &value(&piece.expect["routing_key"]))?;
        let raw = json::to_vec(&envelope).map_err(shown)?;
        let message = envelope::parse(&raw).map_err(shown)?;
        check_body(Body::read(decoded(&message).map_err(shown)?).map_err(shown)?, piece.expect)?;
        let redelivery = envelope::redeliver(&raw).map_err(shown)?;
        assert_eq!(redelivery.priority, 3);
        let restored = fixture.recorded("messages").next().ok_or("was not restored")?;
        ensure_bytes("restored", fixture, &redelivery.envelope, &restored.raw)
    });
}
