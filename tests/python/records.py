"""What workers publish and store for a canvas, written down so that two runs of one canvas can be compared."""

import base64
import codecs
import collections
import difflib
import hashlib
import json
import re
import socket
import uuid

import redis

from support import DEAD_LETTERS

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LINE = re.compile(rb"\+[\d.]+ \[(\d+) [^\]]*\] (.*)\r\n", re.S)
WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.S)
# What differs between two runs and says nothing: when, where, files. A failure in Rust has no Python traceback. Whether
# `argsrepr` shows a tuple or a list is a matter of how the arguments came to the sender. A stock worker has a `reply_to`
# for each of its threads. What Rust says of an argument of the wrong type is not what Python stumbles over.
MASKS = [
    (re.compile(rf'"reply_to": "{UUID.pattern}"'), '"reply_to": "<queue>"'),
    (re.compile(r'"exc_type": "TypeError", "exc_message": \[.*?\], '), '"exc_type": "TypeError", "exc_message": "<text>", '),
    (re.compile(r'"traceback": "(?:[^"\\]|\\.)*"'), '"traceback": null'),
    (re.compile(r'"argsrepr": "(?:\[(.*?)\]|\((.*?),?\))"'), r'"argsrepr": "(\1\2)"'),
    (re.compile(r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^"]*"'), '"<time>"'),
    (re.compile(r"/[\w./-]+/[0-9a-f]{32}\b"), "<path>"),
    (re.compile(r"(gen)?\d+@[\w.-]+"), "<origin>"),
]

# Which member of a chord is its body's parent, and its root where the members have none, is a matter of which was last;
# so is what the task `rust.ids` says of itself, in its result and wherever that is handed on: `[root, parent, x]`.
OF_A_CHORD = [
    (re.compile(rf'"(parent_id|root_id)": "{UUID.pattern}"'), r'"\1": "<some>"'),
    (re.compile(rf"""\[(["']){UUID.pattern}\1, (["']){UUID.pattern}\2, """), r"[\1<some>\1, \2<some>\2, "),
    (re.compile(rf"""\[((["'])[^"']*\2), (["']){UUID.pattern}\3, """), r"[\1, \3<some>\3, "),
]


def masked(text, masks=MASKS):
    for pattern, mask in masks:
        text = pattern.sub(mask, text)
    return text


def without_nulls(value):
    """Without the options of signatures that are null, which say as much as none."""
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: without_nulls(item) for key, item in value.items()}
    if isinstance(value.get("options"), dict):
        value["options"] = {key: item for key, item in value["options"].items() if item is not None}
    return value


class Recorder:
    """Reads along what a Redis is told."""

    def __init__(self, port, queues):
        self._client = redis.Redis(port=port)
        self._queues = queues
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline() == b"+OK\r\n"

    def take(self):
        """All that was published and stored since it was last asked."""
        return Record(*self._seen())

    def _seen(self):
        marker = uuid.uuid4().hex
        self._client.echo(marker)
        messages, metas = [], []
        while True:
            database, words = self._command()
            if marker in words:
                return messages, metas
            match (database, words[0].upper(), *words[1:]):
                case 0, "LPUSH", queue, text if queue != DEAD_LETTERS and text.startswith("{"):
                    messages.append(self._message(queue, json.loads(text)))
                case 1, "PUBLISH", key, text if key.startswith("celery-task-meta-"):
                    metas.append(text)

    def _command(self):
        database, words = LINE.fullmatch(self._lines.readline()).groups()
        return int(database), [codecs.escape_decode(word)[0].decode(errors="replace") for word in WORD.findall(words)]

    def _message(self, queue, envelope):
        """One message; which of the fleet's queues it went to is no matter."""
        envelope["body"] = json.loads(base64.b64decode(envelope["body"]))
        envelope["queue"] = queue
        envelope["properties"].pop("delivery_tag", None)
        # Stock Celery passes the header on as a property when it retries; nobody reads that.
        envelope["properties"].pop("origin", None)
        text = json.dumps(without_nulls(envelope), sort_keys=True)
        for queue in sorted(self._queues, key=len, reverse=True):
            text = text.replace(json.dumps(queue)[1:-1], "<queue>")
        return text

    def close(self):
        self._socket.close()


class Record:
    """The messages and the stored metas of one canvas. Metas are compared byte by byte, messages as values."""

    def __init__(self, messages, metas):
        self._texts = [masked(text) for text in [*metas, *messages]]
        if any('"chord": {' in text for text in self._texts):
            self._in_a_chord = [masked(text, OF_A_CHORD) for text in self._texts]
        else:
            self._in_a_chord = self._texts

    def difference(self, other):
        """Empty, if both are the same but for the ids."""
        one, two = (sorted(UUID.sub("<id>", text) for text in record._texts) for record in (self, other))
        rounds = zip(self._rounds(), other._rounds())
        return _diff(one, two) or next(filter(None, (_diff(one, two) for one, two in rounds)), "")

    def _rounds(self):
        """With each id named after all the places where it stands, more and more exactly: equal graphs have equal texts."""
        texts, places = self._in_a_chord, collections.defaultdict(set)
        for number, text in enumerate(texts):
            for found in UUID.findall(text):
                places[found].add(number)
        labels = dict.fromkeys(places, "id")
        for _ in range(4):
            named = [UUID.sub(lambda found: labels[found.group()], text) for text in texts]
            labels = {
                one: _label(sorted(named[number] + str(_places(one, texts[number])) for number in numbers))
                for one, numbers in places.items()
            }
            yield sorted(UUID.sub(lambda found: labels[found.group()], text) for text in texts)


def _places(one, text):
    """Which of a text's ids it is."""
    return [number for number, found in enumerate(UUID.findall(text)) if found == one]


def _label(texts):
    return "id-" + hashlib.sha1("\n".join(texts).encode()).hexdigest()[:6]


def _diff(one, two):
    """What stands in one and not in the other; of texts that are much alike, only where they differ."""
    missing, surplus = (list((collections.Counter(a) - collections.Counter(b)).elements()) for a, b in [(one, two), (two, one)])
    shown = []
    for text in missing:
        alike = difflib.get_close_matches(text, surplus, 1, 0.6)
        if alike:
            surplus.remove(alike[0])
        shown.append(_changes(text, *alike))
    return "\n".join([*shown, *(f"not expected: {text}" for text in surplus)])


def _changes(text, other=None):
    if other is None:
        return f"not found: {text}"
    changes = [
        f"    expected {text[max(0, a - 60):b + 40]!r}\n    found    {other[max(0, c - 60):d + 40]!r}"
        for tag, a, b, c, d in difflib.SequenceMatcher(None, text, other, False).get_opcodes() if tag != "equal"
    ]
    return "\n".join([f"in {text[:100]}", *changes])
