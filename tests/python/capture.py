"""What a stock receiver of events hears."""

import threading
import time

from support import SECONDS


class Capture:
    """All that a stock receiver hears, and the cluster's state that it makes of it."""

    def __init__(self, app):
        self.app, self.heard, self.state = app, [], app.events.State()
        self._changed = threading.Condition()
        self._connection = app.connection_for_read()
        self._receiver = app.events.Receiver(self._connection, handlers={"*": self._hear})
        self._thread = threading.Thread(target=self._capture, daemon=True)
        self._thread.start()
        self._wait_until_it_hears()

    def _capture(self):
        self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def _hear(self, event):
        with self._changed:
            self.state.event(dict(event))
            self.heard.append(event)
            self._changed.notify_all()

    def _wait_until_it_hears(self):
        """Who listens is not told when the broker knows of it: it is tried out."""
        deadline = time.monotonic() + SECONDS
        with self.app.events.default_dispatcher(hostname="probe@test") as dispatcher:
            while not self.heard:
                assert time.monotonic() < deadline, "a receiver hears nothing"
                dispatcher.send("probe-heard")
                self.wait_for(lambda event: True, timeout=0.1)

    def wait_for(self, wanted, timeout=SECONDS):
        """The first event that is wanted, from the beginning; None if there is none in time."""
        found = None

        def seen():
            nonlocal found
            found = next((event for event in self.heard if wanted(event)), None)
            return found

        with self._changed:
            self._changed.wait_for(seen, timeout)
        return found

    def expect(self, type, **fields):
        fields["type"] = type
        event = self.wait_for(lambda event: fields.items() <= event.items())
        assert event, f"no {fields} in {self.heard}"
        return event

    def of(self, uuid):
        with self._changed:
            return [event for event in self.heard if event.get("uuid") == uuid]

    def close(self):
        self._receiver.should_stop = True
        self._thread.join(SECONDS)
        self._connection.release()
