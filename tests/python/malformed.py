"""The corpus of messages that nobody should send: what each is, what the worker logs of it, and why it is kept."""

import base64
import copy
import dataclasses
import json
import re

from celery.utils.saferepr import saferepr

from support import DEATH

DEEP = 100_000
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

# The beginnings of celery/worker/consumer/consumer.py: UNKNOWN_FORMAT, UNKNOWN_TASK_ERROR, INVALID_TASK_ERROR and
# MESSAGE_DECODE_ERROR.
UNKNOWN = r"WARNING/MainProcess\] Received and deleted unknown message"
UNREGISTERED = r"ERROR/MainProcess\] Received unregistered task of type"
INVALID = r"ERROR/MainProcess\] Received invalid task message: "
UNDECODABLE = r"CRITICAL/MainProcess\] Can't decode message body: "


def envelope(template, *, body=..., raw_body=None, headers=(), properties=(), **fields):
    """The good message with other parts; `...` takes a header or property away."""
    message = copy.deepcopy(template)
    if body is not ...:
        raw_body = json.dumps(body).encode()
    if raw_body is not None:
        message["body"] = base64.b64encode(raw_body).decode()
    for part, changes in [("headers", headers), ("properties", properties)]:
        for name, value in dict(changes).items():
            message[part][name] = value
            if value is ...:
                del message[part][name]
    message.update({name.replace("_", "-"): value for name, value in fields.items()})
    return message


# Bytes that are no envelope: there is nothing to store a result under, and all of it is kept. Each row: the bytes, and a
# piece of the reason.

NO_OBJECT = "expected an object at byte 0"
NO_TEXT = "the text is not UTF-8"
TOO_DEEP = "expected no more than 1000 levels of nesting"
NO_ENVELOPES = {
    "not JSON": (b"this is not JSON", NO_OBJECT),
    "empty": (b"", NO_OBJECT),
    "NUL": (b"\0", NO_OBJECT),
    "not UTF-8": (b'{"body": "\xff\xfe"}', NO_TEXT),
    "truncated": (
        b'{"body": "W1tdLCB7fSwge31d", "headers": {"task": "rust.add", "id": "1"', "a comma or the end of the object"),
    "a number": (b"12", NO_OBJECT),
    "null": (b"null", NO_OBJECT),
    "a list": (b"[1, 2]", NO_OBJECT),
    "a string": (b'"text"', NO_OBJECT),
    "rest behind it": (b"{} {}", "the end of the text at byte 3"),
    "no JSON between braces": (b"{no JSON}", "reading JSON"),
    "deep lists": (b"[" * DEEP, NO_OBJECT),
    "deep objects": (b'{"a":' * DEEP, TOO_DEEP),
    "deep headers": (b'{"headers": {"task": ' + b"[" * DEEP + b"]" * DEEP + b"}}", TOO_DEEP),
    "pickle": (b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}", NO_TEXT),
    "huge number": (b"9" * 1_000_000, NO_OBJECT),
}

# Envelopes without a task.

NO_TASKS = {
    "no header task": dict(headers={"task": ...}),
    "header task null": dict(headers={"task": None}),
    "payload is a map without task": dict(headers={"task": ...}, body={"id": "x"}),
    "payload is a string": dict(headers={"task": ...}, body="text"),
    "payload is null": dict(headers={"task": ...}, body=None),
    "no headers": dict(headers={"task": ...}, properties={"correlation_id": ...}),
}

# Envelopes of tasks that cannot be run. Each row: what is changed, what is logged, the exception that is stored, and a
# piece of the reason. The exception is null where there is no id to store it under.

REFUSED = "Refusing to deserialize untrusted content of type"
REFUSALS = {
    "unregistered": (dict(headers={"task": "no.such.task"}), UNREGISTERED, "NotRegistered", "no.such.task"),
    "task is no text": (dict(headers={"task": ["rust.add"]}), UNKNOWN, "InvalidTaskError", "not a task message"),
    "no id": (dict(headers={"id": ...}), INVALID, None, "'id'"),
    "id null": (dict(headers={"id": None}), INVALID, None, "'id'"),
    "id is a map": (dict(headers={"id": {}}), INVALID, None, "'id'"),
    "body is not JSON": (
        dict(raw_body=b"[[1, 2"), UNDECODABLE, "DecodeError", "a comma or the end of the list at byte 6"),
    "body is not UTF-8": (dict(raw_body=b'[["\xff"], {}, {}]'), UNDECODABLE, "DecodeError", NO_TEXT),
    "body has more behind it": (
        dict(raw_body=b"[[], {}, {}] []"), UNDECODABLE, "DecodeError", "the end of the text at byte 13"),
    "body is deep": (dict(raw_body=b"[" * DEEP), UNDECODABLE, "DecodeError", TOO_DEEP),
    "arguments are deep": (
        dict(raw_body=b"[[" + b"[" * DEEP + b"]" * DEEP + b"], {}, {}]"), UNDECODABLE, "DecodeError", TOO_DEEP),
    "unknown type": (
        dict(body=[[{"__type__": "elsewhere", "__value__": 1}], {}, EMBED]), UNDECODABLE, "DecodeError", "elsewhere"),
    "bad datetime": (
        dict(body=[[{"__type__": "datetime", "__value__": "never"}], {}, EMBED]), UNDECODABLE, "DecodeError", "never"),
    "bad uuid": (
        dict(body=[[{"__type__": "uuid", "__value__": {"hex": "zz"}}], {}, EMBED]), UNDECODABLE, "DecodeError", "uuid"),
    "bad base64": (
        dict(body=[[{"__type__": "base64", "__value__": "!"}], {}, EMBED]), UNDECODABLE, "DecodeError", "base64"),
    "unknown compression": (
        dict(headers={"compression": "application/x-zip"}), UNDECODABLE, "DecodeError", "application/x-zip"),
    "not compressed": (
        dict(headers={"compression": "application/x-gzip"}), UNDECODABLE, "DecodeError", "application/x-gzip"),
    "compression is a number": (dict(headers={"compression": 7}), UNDECODABLE, "DecodeError", "of type int"),
    "pickle": (dict(content_type="application/x-python-serialize"), INVALID, "ContentDisallowed", REFUSED),
    "yaml": (dict(content_type="application/x-yaml"), INVALID, "ContentDisallowed", REFUSED),
    "msgpack": (dict(content_type="application/x-msgpack"), INVALID, "ContentDisallowed", REFUSED),
    "unknown content type": (dict(content_type="application/x-novel"), INVALID, "ContentDisallowed", REFUSED),
    "no content type": (dict(content_type=None), INVALID, "InvalidTaskError", "content type"),
    "eta is no time": (dict(headers={"eta": "tomorrow"}), INVALID, "InvalidTaskError", "tomorrow"),
    "eta is a number": (dict(headers={"eta": 1764000000}), INVALID, "InvalidTaskError", "1764000000"),
    "eta is a list": (dict(headers={"eta": []}), INVALID, "InvalidTaskError", "ETA"),
    "eta has a month too many": (dict(headers={"eta": "2026-13-01T00:00:00"}), INVALID, "InvalidTaskError", "2026-13"),
    "expires is no time": (dict(headers={"expires": "tomorrow"}), INVALID, "InvalidTaskError", "tomorrow"),
    "expires is a number": (dict(headers={"expires": 60.5}), INVALID, "InvalidTaskError", "60.5"),
    "eta at the end of time": (
        dict(headers={"eta": "9999-12-31T23:59:59.999999-12:00"}), INVALID, "OverflowError", "9999"),
    "kwargs null": (dict(body=[[1, 2], None, EMBED]), INVALID, "InvalidTaskError", "not a mapping"),
    "kwargs is a list": (dict(body=[[1, 2], [], EMBED]), INVALID, "InvalidTaskError", "not a mapping"),
    "args is a map": (dict(body=[{}, {}, EMBED]), INVALID, "InvalidTaskError", "not a list"),
    "embed is a list": (dict(body=[[1, 2], {}, [1]]), INVALID, "InvalidTaskError", "third item"),
    "body of two": (dict(body=[[1, 2], {}]), INVALID, "InvalidTaskError", "but [[1, 2], {}]"),
    "body of four": (dict(body=[[1, 2], {}, EMBED, None]), INVALID, "InvalidTaskError", "}, None]"),
    "body is a map": (dict(body={"args": [1, 2]}), INVALID, "InvalidTaskError", "but {'args': [1, 2]}"),
    "body is null": (dict(body=None), INVALID, "InvalidTaskError", "but None"),
    "body is empty": (dict(raw_body=b""), INVALID, "InvalidTaskError", "but b''"),
    "v1 kwargs is a list": (
        dict(headers={"task": ...}, body={"task": "rust.add", "id": "1", "args": [1], "kwargs": []}),
        INVALID, "InvalidTaskError", "not a mapping"),
}


@dataclasses.dataclass(frozen=True)
class Bad:
    """A bad message among many, and what must become of it."""

    raw: bytes
    logged: str  # The pattern of its log record.
    signs: tuple  # What that record says of this message, and no other's does.
    reason: str  # A piece of the reason that its dead letter gives.
    exception: str | None = None  # The class of its FAILURE; none where there is no id to store it under.
    id: str | None = None

    def is_logged(self, record):
        return re.search(self.logged, record) and all(sign in record for sign in self.signs)


def refused(message, logged, reason, exception=None):
    """An envelope; what is logged of it names its id, or its mark where it has none."""
    headers = message["headers"]
    sign = ("mark", headers["mark"]) if "mark" in headers else ("id", headers["id"])
    signs = (f"{sign[0]!r}: {sign[1]!r}",)
    return Bad(json.dumps(message).encode(), logged, signs, reason, exception, exception and headers["id"])


def no_message(raw, reason):
    """Bytes; what is logged of them is their beginning, as Celery shows it, and their length."""
    return Bad(raw, UNDECODABLE, (f"[body: {saferepr(raw[:1024])} ({len(raw)}b)]",), reason)


def corpus(template):
    """All of the above, each envelope with an id of its own unless it is the id that is wrong."""

    def changed(name, changes):
        message = envelope(template, **{**changes, "headers": {"id": f"bad {name}", **changes.get("headers", {})}})
        return {**message, "headers": {"mark": name, **message["headers"]}}

    bad = [no_message(raw, reason) for raw, reason in NO_ENVELOPES.values()]
    bad.append(no_message(json.dumps({**template, "body": "!!! not base64 !!!"}).encode(), "the body is not base64"))
    for name, changes in NO_TASKS.items():
        bad.append(refused(changed(name, changes), UNKNOWN, "not a task message", "InvalidTaskError"))
    for name, (changes, logged, exception, reason) in REFUSALS.items():
        bad.append(refused(changed(name, changes), logged, reason, exception))
    return bad


def unmarked(raw):
    """An object that was no message is marked, too, where it can be."""
    try:
        message = json.loads(raw)
        marked = [message["headers"], message["properties"]["delivery_info"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return raw
    if not all(isinstance(each, dict) and "redelivered" in each for each in marked):
        return raw
    for each in marked:
        del each["redelivered"]
    return json.dumps(message).encode()


def original(letter):
    """What a dead letter was made of: the bytes that were no message, or the parts of one. Kombu's mark of what was
    delivered before is left out: it may have been in the hands of a worker that died."""
    if letter.get("content-type") == "application/data":
        return unmarked(base64.b64decode(letter["body"]))
    headers = {name: value for name, value in letter["headers"].items() if name not in [DEATH, "redelivered"]}
    return json.dumps([headers, letter["body"], letter.get("content-type")])
