"""A proxy between a worker and RabbitMQ that knows frames: it acts when one says a certain thing to the other."""

import struct
import threading

from cutting import Listener, shut

METHOD, HEADER, BODY = 1, 2, 3
METHODS = {
    (40, 10): b"exchange.declare", (50, 10): b"queue.declare", (50, 11): b"queue.declare-ok", (50, 20): b"queue.bind",
    (50, 40): b"queue.delete", (60, 10): b"basic.qos", (60, 20): b"basic.consume", (60, 30): b"basic.cancel",
    (60, 40): b"basic.publish", (60, 60): b"basic.deliver", (60, 70): b"basic.get", (60, 71): b"basic.get-ok",
    (60, 80): b"basic.ack", (60, 90): b"basic.reject", (60, 120): b"basic.nack", (85, 10): b"confirm.select",
}
WITH_CONTENT = {(60, 40), (60, 50), (60, 60), (60, 71)}
TOLD = 10  # Seconds that a server has to say that it has done something.


class AmqpProxy(Listener):
    """Hands on methods one by one, each with its content. A trap is shown them as a few words: the method's name, its
    arguments, and of a message the properties with the headers and the body, all as they are on the wire."""

    def __init__(self, port, trap, queue):
        """The queue is one that is there, for questions that are only answered when all before them is done."""
        self.queue, self.trap = queue, trap
        super().__init__(port, trap)

    def begin(self, client, server):
        Wire(client, server, self.trap, self.queue)


class Wire:
    """One connection."""

    def __init__(self, client, server, trap, queue):
        self._client, self._server, self._trap = client, server, trap
        self._question, self._answer = question(queue), [b"queue.declare-ok", short(queue)]
        # How many messages were published on each channel that confirms them, which is how they are numbered there.
        self._published = {}
        # From now on nothing is handed on; what the server is waited for to say.
        self._stopped, self._awaited, self._told = False, None, threading.Event()
        for run in (self._hear_client, self._hear_server):
            threading.Thread(target=self._guard, args=(run,), daemon=True).start()

    def _guard(self, run):
        try:
            run()
        except OSError:
            pass
        finally:
            for side in (self._client, self._server):
                shut(side)

    def _hear_client(self):
        heard = self._client.makefile("rb")
        self._server.sendall(heard.read(8))
        for raw, channel, words in methods(heard):
            if self._stopped:
                # The other side is acting, and ends the connection when it has.
                return self._told.wait(2 * TOLD)
            self._count(channel, words)
            if self._trap.springs([words]):
                return self._spring(raw, channel, words)
            self._server.sendall(raw)

    def _count(self, channel, words):
        if words[0] == b"confirm.select":
            self._published[channel] = 0
        elif words[0] == b"basic.publish" and channel in self._published:
            self._published[channel] += 1

    def _spring(self, raw, channel, words):
        if self._trap.after:
            confirmed = self._published.get(channel, 0) if words[0] == b"basic.publish" else 0
            self._awaited, self._stopped = Awaited(channel, self._answer, confirmed), True
            self._server.sendall(raw + frame(METHOD, channel, self._question))
            assert self._told.wait(TOLD), f"the server did not say that it has done {words}"
        self._act()

    def _act(self):
        self._stopped = True
        self._trap.spring()
        self._told.set()

    def _hear_server(self):
        for raw, channel, words in methods(self._server.makefile("rb")):
            if self._awaited:
                if self._awaited.hears(channel, words):
                    self._told.set()
            elif self._stopped:
                return self._told.wait(2 * TOLD)
            elif is_message(words) and self._trap.springs([words]):
                # Nothing that the client says to this is heard.
                self._stopped = True
                if self._trap.after:
                    self._client.sendall(raw)
                return self._act()
            else:
                self._client.sendall(raw)


class Awaited:
    """What the server says when it has done all that it was told on a channel."""

    def __init__(self, channel, answer, confirmed):
        self._channel, self._answer, self._confirmed = channel, answer, confirmed
        self._answered = False

    def hears(self, channel, words):
        """Whether that was the last of it."""
        if channel == self._channel:
            if words[0] in (b"basic.ack", b"basic.nack"):
                tag, multiple = struct.unpack_from(">Q?", words[1])
                if tag == self._confirmed or multiple and tag > self._confirmed:
                    self._confirmed = 0
            elif words[0] == self._answer[0] and words[1].startswith(self._answer[1]):
                self._answered = True
        return self._answered and not self._confirmed


def methods(heard):
    """What is said: the bytes of a method with its content, its channel, and its words. Methods of several channels may
    be mixed. What is none, a heartbeat, has one empty word."""
    begun = {}
    while len(head := heard.read(7)) == 7:
        kind, channel, size = struct.unpack(">BHI", head)
        payload = heard.read(size + 1)
        raw, payload = head + payload, payload[:size]
        if kind == METHOD:
            number = struct.unpack_from(">HH", payload)
            one = Content([raw], [METHODS.get(number, b"?"), payload[4:]], 1 if number in WITH_CONTENT else 0)
        elif kind in (HEADER, BODY):
            one = begun.pop(channel)
            one.add(kind, raw, payload)
        else:
            one = Content([raw], [b""], 0)
        if one.left:
            begun[channel] = one
        else:
            yield b"".join(one.raw), channel, one.words


class Content:
    """A method whose content may still be on its way."""

    def __init__(self, raw, words, left):
        # `left`: how many bytes are to come; before the header has come, some.
        self.raw, self.words, self.left = raw, words, left

    def add(self, kind, raw, payload):
        self.raw.append(raw)
        if kind == HEADER:
            (self.left,) = struct.unpack_from(">Q", payload, 4)
            self.words += [payload[12:], b""]
        else:
            self.left -= len(payload)
            self.words[3] += payload


def is_message(words):
    """Of what the server says, only that is shown to a trap: other words of its are also the client's."""
    return len(words) > 2


def short(text):
    return struct.pack(">B", len(text)) + text.encode()


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def question(queue):
    """Whether there is that queue: a channel asks it when it has done all that came before, and the queue answers when
    it has."""
    return struct.pack(">HHH", 50, 10, 0) + short(queue) + b"\1" + bytes(4)
