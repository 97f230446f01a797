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

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LINE = re.compile(rb"\+[\d.]+ \[(\d+) [^\]]*\] (.*)\r\n", re.S)
WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.S)
# What differs between two runs and says nothing: when, where, files, and the text of a Python traceback.
MASKS = [
    (re.compile(r'"traceback": "(?:[^"\\]|\\.)*"'), '"traceback": "<text>"'),
    (re.compile(r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^"]*"'), '"<time>"'),
    (re.compile(r"/[\w./-]+/[0-9a-f]{32}\b"), "<path>"),
    (re.compile(r"(gen)?\d+@[\w.-]+"), "<origin>"),
]

# Which member of a chord is its body's parent, and its root where the members have none, is a matter of which was last.
OF_A_CHORD = re.compile(rf'"(parent_id|root_id)": "{UUID.pattern}"')


def masked(text):
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text


class Recorder:
    """Reads along what a Redis is told."""

    def __init__(self, broker, queues):
        self._client = broker.client
        self._queues = queues
        self._socket = socket.create_connection(("127.0.0.1", broker.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline() == b"+OK\r\n"

    def take(self):
        """All that was published and stored since it was last asked."""
        marker = uuid.uuid4().hex
        self._client.echo(marker)
        messages, metas = [], []
        while True:
            database, words = self._command()
            if marker in words:
                return Record(messages, metas)
            match (database, words[0].upper(), *words[1:]):
                case 0, "LPUSH", queue, text if text.startswith("{"):
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
        del envelope["properties"]["delivery_tag"]
        text = json.dumps(envelope, sort_keys=True)
        for queue in sorted(self._queues, key=len, reverse=True):
            text = text.replace(json.dumps(queue)[1:-1], "<queue>")
        return text

    def close(self):
        self._socket.close()


class Record:
    """The messages and the stored metas of one canvas. Metas are compared byte by byte, messages as values."""

    def __init__(self, messages, metas):
        self._texts = [masked(text) for text in [*metas, *messages]]

    def difference(self, other):
        """Empty, if both are the same but for the ids."""
        one, two = self._anonymous(), other._anonymous()
        if one == two and self._labelled() != other._labelled():
            return "the same texts, but ids stand where others should:\n" + _diff(self._labelled(), other._labelled())
        return _diff(one, two)

    def _anonymous(self):
        return sorted(UUID.sub("<id>", text) for text in self._texts)

    def _labelled(self):
        """With each id named after all the places where it stands, so that equal graphs have equal texts."""
        all_texts, places = self._texts, collections.defaultdict(set)
        if any('"chord": {' in text for text in all_texts):
            all_texts = [OF_A_CHORD.sub(r'"\1": "<id>"', text) for text in all_texts]
        for number, text in enumerate(all_texts):
            for found in UUID.findall(text):
                places[found].add(number)
        labels = dict.fromkeys(places, "id")
        for _ in range(4):
            texts = [UUID.sub(lambda found: labels[found.group()], text) for text in all_texts]
            labels = {
                one: _label(sorted(
                    texts[number] + str(_places(one, all_texts[number]))
                    for number in numbers
                ))
                for one, numbers in places.items()
            }
        return sorted(UUID.sub(lambda found: labels[found.group()], text) for text in all_texts)


def _places(one, text):
    """Which of a text's ids it is."""
    return [number for number, found in enumerate(UUID.findall(text)) if found == one]


def _label(texts):
    return "id-" + hashlib.sha1("\n".join(texts).encode()).hexdigest()[:6]


def _diff(one, two):
    return "\n".join(difflib.unified_diff(one, two, "expected", "found", lineterm="", n=0))
