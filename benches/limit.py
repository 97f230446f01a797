"""What Redis itself takes for the same messages: the limit of any worker that loses nothing.

The same queue is emptied by a client that does no work between: each batch of 400 is one script (pop, HSET `unacked`,
ZADD `unacked_index`), for stored results a second one (SET with expiry and PUBLISH for each), and one HDEL and one ZREM.
All requests are bytes made beforehand and sent as pipelines, so that Redis's one thread is what the time is spent on.
"""

from __future__ import annotations

import socket
import threading
import time

from envelopes import copies, release, stage
from harness import Failed, Redis
from measure import command
from peers import QUEUE

BATCH = 400
# Pipelines on their way: enough that Redis never waits for the client.
WINDOW = 8
MARKER = b"limit-marker"
STEPS = [QUEUE, *(f"{QUEUE}\x06\x16{step}" for step in (3, 6, 9))]
RESERVE = """
local taken, fields, scores = {}, {}, {}
for queue = 1, #KEYS - 2 do
  local raws = redis.call('RPOP', KEYS[queue], #ARGV - 1 - #taken)
  for _, raw in ipairs(raws or {}) do
    local n = #taken + 1
    taken[n] = raw
    local tag = ARGV[n + 1]
    fields[2 * n - 1], fields[2 * n] = tag, '[' .. raw .. ', "", "' .. KEYS[queue] .. '"]'
    scores[2 * n - 1], scores[2 * n] = ARGV[1], tag
  end
  if #taken == #ARGV - 1 then break end
end
if #taken > 0 then
  redis.call('HSET', KEYS[#KEYS - 1], unpack(fields))
  redis.call('ZADD', KEYS[#KEYS], unpack(scores))
end
return taken
"""

STORE = """
for i = 1, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i], 'EX', 86400, 'NX')
  redis.call('PUBLISH', KEYS[i], ARGV[i])
end
"""
META = (b'{"status": "SUCCESS", "result": null, "traceback": null, "children": [], '
        b'"date_done": "2026-01-01T00:00:00.000000+00:00", "task_id": "%s"}')


def redis_alone(server: Redis, envelope: str, messages: int, stored: bool) -> dict:
    """Messages a second."""
    server.broker.flushall()
    messages -= messages % BATCH
    ids = []

    def noted():
        for task_id, text in copies(envelope, messages):
            ids.append(task_id)
            yield task_id, text

    stage(server.broker, noted())
    scripts = [server.broker.script_load(text).encode() for text in (RESERVE, STORE)]
    pipelines = [pipeline(*scripts, ids[at:at + BATCH], stored) for at in range(0, messages, BATCH)]
    release(server.broker, QUEUE)
    seconds = drive(server.port, pipelines)
    left = server.broker.llen(QUEUE) + server.broker.hlen("unacked") + server.broker.zcard("unacked_index")
    results = sum(1 for _ in ids[:10] if server.broker.exists(f"celery-task-meta-{_}"))
    if left or (stored and results < min(10, len(ids))):
        raise Failed(f"the measurement of Redis alone left {left} messages behind")
    return {"messages": messages, "seconds": seconds, "per_second": messages / seconds}


def pipeline(reserve: bytes, store: bytes, ids: list[str], stored: bool) -> bytes:
    """All that becomes of one batch."""
    tags = [task_id[-12:].encode() for task_id in ids]
    keys = [name.encode() for name in (*STEPS, "unacked", "unacked_index")]
    parts = [command(b"EVALSHA", reserve, b"%d" % len(keys), *keys, b"%.6f" % time.time(), *tags)]
    if stored:
        results = [b"celery-task-meta-" + task_id.encode() for task_id in ids]
        values = [META % task_id.encode() for task_id in ids]
        parts.append(command(b"EVALSHA", store, b"%d" % len(ids), *results, *values))
    parts += [command(b"HDEL", b"unacked", *tags), command(b"ZREM", b"unacked_index", *tags), command(b"ECHO", MARKER)]
    return b"".join(parts)


def drive(port: int, pipelines: list[bytes]) -> float:
    """Sends the pipelines, never more than ``WINDOW`` unanswered, and returns the seconds it took."""
    window = threading.Semaphore(WINDOW)
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send() -> None:
        for each in pipelines:
            window.acquire()
            connection.sendall(each)

    sender = threading.Thread(target=send, daemon=True)
    started = time.perf_counter()
    sender.start()
    answered, tail = 0, b""
    while answered < len(pipelines):
        if not (more := connection.recv(1 << 20)):
            raise Failed("Redis closed the connection")
        seen = tail + more
        now = seen.count(MARKER)
        answered += now
        window.release(now) if now else None
        tail = seen[seen.rfind(MARKER) + len(MARKER):][-len(MARKER) + 1:] if now else seen[-len(MARKER) + 1:]
    seconds = time.perf_counter() - started
    connection.close()
    return seconds
