"""RedBeat's keys in Redis as the place where beat has its entries and keeps what ran last (``RedBeatScheduler``).

Its own classes say which Redis and which keys, read and write the entries, and install those of the settings; when they are
due, Rust decides. Its lock is taken as it takes it, so that of any number of beats, its own or ours, one sends. Two things
are otherwise than there. A run is written under the condition that the lock is still held and the entry is as it was read:
a beat that was away for longer than the lock lasts sends nothing, and one that loses the lock waits for it again, where
RedBeat ends. And changes are looked for every few seconds, not every few minutes. A beat that is killed between writing
down a run and sending it leaves it out, as RedBeat does.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from celery.utils.log import get_logger
from redbeat.decoder import RedBeatJSONEncoder
from redbeat.schedulers import RedBeatScheduler, RedBeatSchedulerEntry, get_redis
from redis.exceptions import LockError, RedisError, WatchError

from celeriac.beat import told

logger = get_logger("celery.beat")

EPOCH = datetime.fromtimestamp(0, timezone.utc)
#: How long beat sleeps at most, in seconds, where nothing is configured.
LOOKS = 5.0
#: For how many seconds what was read is not read again, however often beat wakes up.
FRESH = 0.5


class Row:
    """An entry as it was read: the condition under which a run of it may be written."""

    def __init__(self, app, key: str, definition: str, meta: Optional[str]):
        self.key = key
        #: What stands in Redis.
        self.fields = [definition, meta]
        fields = {**RedBeatSchedulerEntry.decode_definition(definition), **RedBeatSchedulerEntry.decode_meta(meta)}
        self.entry = RedBeatSchedulerEntry(app=app, **fields)
        # The entry itself says "now" of one that never ran; that is due at once.
        self.last_run_at = fields["last_run_at"] or EPOCH
        self.total_run_count = self.entry.total_run_count

    def told(self) -> tuple:
        """For Rust: name, schedule, task, arguments, options, the last run; there is no start."""
        entry = self.entry
        # As they are: what is no list or no mapping is Celery's to refuse, when the entry is due.
        return (
            (entry.name, told(entry.schedule), entry.task, entry.args, entry.kwargs, entry.options),
            (self.last_run_at - EPOCH) // timedelta(microseconds=1), self.total_run_count, None,
        )  # fmt: skip

    def run(self, moment: datetime) -> tuple[str, float]:
        """What is to be written when it runs at that moment: ``meta``, and the score."""
        self.entry.last_run_at = self.last_run_at = moment
        self.total_run_count += 1
        meta = {"last_run_at": moment, "total_run_count": self.total_run_count}
        self.fields[1] = json.dumps(meta, cls=RedBeatJSONEncoder)
        return self.fields[1], self.entry.score


class RedBeatStore:
    """What Rust asks of the keys. One thread does all that, so that a beat that ends waits for what is under way."""

    def __init__(self, app, only_reads: bool, max_interval: Optional[float]):
        self.app = app
        self._only_reads = only_reads
        self._scheduler = RedBeatScheduler(app, max_interval=max_interval, lazy=True)
        # The lock is extended when beat looks.
        self.max_interval = min(LOOKS, self._scheduler.lock_timeout / 3)
        self._lock: Any = None
        self._leads, self._waits, self._has_begun = False, False, False
        #: By name; what was told last, and None if that is to be told anew.
        self._rows: dict[str, Row] = {}
        self._told: Optional[dict[str, list]] = None
        self._read_at = float("-inf")
        self._thread = ThreadPoolExecutor(1, "celeriac-beat-redbeat")

    def changed(self) -> Optional[list[tuple]]:
        """All entries that may be due before the next look, if they are others than they were."""
        return self._thread.submit(self._changed).result()

    def claim(self, name: str, now: int) -> bool:
        """Writes down that the entry runs at that microsecond; says whether it does, and not another beat's."""
        return self._thread.submit(self._claim, name, now).result()

    def entry(self, name: str) -> RedBeatSchedulerEntry:
        """What a run of that entry sends."""
        return self._rows[name].entry

    def close(self) -> None:
        """Lets the next beat have the lock."""
        self._thread.submit(self._release).result()

    def _client(self) -> Any:
        """RedBeat's, without its way of trying again (``retry_period``): beat looks again anyway, and can end meanwhile."""
        client = get_redis(self.app)
        return getattr(client, "wrapped_connection", client)

    def _changed(self) -> Optional[list[tuple]]:
        if self._told is not None and time.monotonic() < self._read_at + FRESH:
            return None
        try:
            if not self._has_begun and not self._only_reads:
                self._scheduler.setup_schedule()
            self._has_begun = True
            rows = self._read() if self._only_reads or self._holds_lock() else {}
        except RedisError as error:
            logger.error("beat: Connection error: %s. Trying again...", error)
            self._told = None
            return None
        self._rows, self._read_at = rows, time.monotonic()
        fields = {row.key: list(row.fields) for row in rows.values()}
        if fields == self._told:
            return None
        changed = [row.told() for row in rows.values()]
        # Not before: what could not be told is to be told anew.
        self._told = fields
        return changed

    def _holds_lock(self) -> bool:
        """Takes the lock, or extends it; whether this beat has it, or nobody wants one."""
        if not self._scheduler.lock_key:
            return True
        if self._lock is None:
            self._lock = self._client().lock(self._scheduler.lock_key, timeout=self._scheduler.lock_timeout)
        if self._leads:
            try:
                return self._lock.reacquire()
            except LockError:
                self._leads = False
                logger.warning("beat: The lock was lost")
        self._leads = self._lock.acquire(blocking=False)
        if self._leads:
            logger.info("beat: Acquired lock")
        elif not self._waits:
            logger.info("beat: Another beat leads; waiting.")
        self._waits = not self._leads
        return self._leads

    def _release(self) -> None:
        if not self._leads:
            return
        logger.info("beat: Releasing lock")
        self._leads = False
        try:
            self._lock.release()
        except RedisError as error:
            logger.warning("beat: The lock was not released: %s", error)

    def _read(self) -> dict[str, Row]:
        client, schedule_key = self._client(), self.app.redbeat_conf.schedule_key
        # The score is when it is due, in whole seconds; one that is never due again has none of these.
        soon = time.time() + self._scheduler.max_interval + 1
        keys = client.zrangebyscore(schedule_key, 0, "+inf" if self._only_reads else soon)
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, "definition", "meta")
            found = pipe.execute()
        rows = {}
        for key, (definition, meta) in zip(keys, found):
            if not definition:
                logger.warning("beat: Failed to load %s%s", key, "" if self._only_reads else ", removing")
                if not self._only_reads:
                    client.zrem(schedule_key, key)
                continue
            try:
                row = Row(self.app, key, definition, meta)
                # One that cannot be told hinders no other either.
                row.told()
                if row.entry.enabled:
                    rows[row.entry.name] = row
            except Exception as error:
                logger.error("beat: Failed to load %s: %r", key, error)
        return rows

    def _claim(self, name: str, now: int) -> bool:
        row = self._rows.get(name)
        if row is None:
            return False
        try:
            with self._client().pipeline() as pipe:
                if self._has_changed(row, pipe):
                    self._told = None
                    return False
                meta, score = row.run(self._moment(now))
                pipe.multi()
                pipe.hset(row.key, "meta", meta)
                pipe.zadd(self.app.redbeat_conf.schedule_key, {row.key: score})
                pipe.execute()
        except WatchError:
            self._told = None
            return False
        except RedisError as error:
            logger.error("beat: Connection error: %s. %s is not sent", error, name)
            self._told = None
            return False
        if self._told is not None:
            self._told[row.key] = list(row.fields)
        return True

    def _has_changed(self, row: Row, pipe: Any) -> bool:
        """Whether somebody has changed the entry, or has the lock; from now on nobody may."""
        lock_key = self._scheduler.lock_key
        pipe.watch(row.key, *([lock_key] if lock_key else []))
        if lock_key and not (self._leads and self._lock.owned()):
            return True
        return pipe.hmget(row.key, "definition", "meta") != row.fields

    def _moment(self, microseconds: int) -> datetime:
        """That microsecond, as RedBeat writes it; where that would mean an hour before as well, with its offset."""
        moment = (EPOCH + timedelta(microseconds=microseconds)).astimezone(self.app.timezone)
        return moment.astimezone(timezone(moment.utcoffset() or timedelta())) if moment.fold else moment
