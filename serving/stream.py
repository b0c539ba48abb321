"""Server-sent events: alerts in the order in which the store received them, and the current minute as it changes.

One thread per process asks the store, while anybody listens, and keeps the log of alerts as long as the store keeps it.
A stream is no more than a place in that log. So what streams hold does not grow with their number, and one that is too
slow is the one whose place is no longer there: it is closed, and goes on where it was when it comes back.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from schemas import currencies, features
from serving.store import Store, StoreUnavailable

__all__ = ["Stream", "Streams", "TooManyStreams", "Wanted"]

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_HEARTBEAT_S = 15.0
_LOOK_S = 1.0  # how long a stream waits before it lets the server see whether its client is still there
_PAGE = 1_000
_FRAMES = 100  # alerts that are sent at once
_RETRY_MS = 2_000

EventId = tuple[int, int]


class TooManyStreams(Exception):
    """As many streams are open as this process holds."""


class Wanted(NamedTuple):
    """What a stream tells.

    Attributes:
      events: `alert`, `revenue`.
      alert_type, user_id: alerts of these only; None for all.
      after: the last alert that was seen; None for those that are new from now on.
      currency: of the minutes.
    """

    events: frozenset[str]
    alert_type: str | None = None
    user_id: str | None = None
    after: EventId | None = None
    currency: str = currencies.DEFAULT


class _Subject(msgspec.Struct):
    user_id: str
    alert_type: str


class _Alert(NamedTuple):
    event_id: EventId
    subject: _Subject
    frame: bytes


class Streams:
    """The streams of one process.

    Args:
      store: its own, which nobody else waits for.
      most: streams at a time; each holds a thread of the server.
      retry_s: how long a store that does not answer is left alone.
      poll_s: how often it is asked.
    """

    def __init__(
        self,
        store: Store,
        most: int,
        retry_s: float,
        poll_s: float = _POLL_S,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store = store
        self._most = most
        self._retry_s = retry_s
        self._poll_s = poll_s
        self.clock = clock
        self.news = threading.Condition()  # guards what follows
        self.ended = False
        self.revenue: dict[str, bytes] = {}
        self.read_at = 0  # number of the last poll that the store answered
        self.polls = 0
        self._alerts: list[_Alert] = []
        self._read_to: EventId = (0, 0)  # the last entry of the log, whoever wrote it
        self._first = 0  # place of the first of them: how many there were before
        self._open: Counter[str] = Counter()  # by the currency that is wanted
        self._thread: threading.Thread | None = None
        self._asked = threading.Event()
        self._subject = msgspec.json.Decoder(_Subject)

    def open(self, wanted: Wanted) -> Stream:
        """A stream from here on: alerts that the store gets after this returns are in it.

        When the store does not answer, from when it does.

        Raises:
          TooManyStreams
        """
        with self.news:
            if self.ended or self._open.total() >= self._most:
                raise TooManyStreams
            self._open[wanted.currency] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
                self._thread.start()
            stream = Stream(self, wanted, self.polls)
            self._asked.set()
            self.news.wait_for(lambda: self.polls > stream.since or not self.runs, timeout=_LOOK_S)
            stream.find_place()
        return stream

    def release(self, wanted: Wanted) -> None:
        with self.news:
            self._open[wanted.currency] -= 1

    def close(self) -> None:
        """Ends every stream at once, and refuses others."""
        with self.news:
            self.ended = True
            self._asked.set()
            self.news.notify_all()

    @property
    def runs(self) -> bool:
        return self._thread is not None and not self.ended

    @property
    def end(self) -> int:
        """The place after the last alert."""
        return self._first + len(self._alerts)

    def place_after(self, event_id: EventId) -> int:
        return self._first + bisect_right(self._alerts, event_id, key=lambda alert: alert.event_id)

    def alerts(self, place: int) -> list[_Alert] | None:
        """Some from a place on; None when it is gone."""
        if place < self._first:
            return None
        return self._alerts[place - self._first : place - self._first + _FRAMES]

    def last_id(self, place: int) -> EventId:
        """That of the alert before a place."""
        index = place - self._first
        return self._alerts[index - 1].event_id if index > 0 else (0, 0)

    def _run(self) -> None:
        pause_s = self._poll_s
        try:
            while not self.ended:
                asked = self._asked.wait(pause_s if self._open.total() else None)
                self._asked.clear()
                pause_s = self._poll_s if self._poll(asked) else self._retry_s
        finally:  # a failure nobody foresaw ends the streams, and the next one that is opened begins anew
            with self.news:
                self._thread = None
                self.news.notify_all()

    def _poll(self, asked: bool) -> bool:
        try:
            with self.news:
                wanted = list(+self._open)
            now = {currency: self._store.revenue_now(currency) for currency in wanted}
            revenue = {currency: minute for currency, minute in now.items() if minute is not None}
            alerts = self._new_alerts()  # the last that may fail: what was read is not read again
        except StoreUnavailable:
            with self.news:
                self.polls += 1
                self.news.notify_all()
            return False
        with self.news:
            self.polls += 1
            self.read_at = self.polls
            if alerts or revenue != self.revenue or asked:
                self.news.notify_all()
            self.revenue = revenue
            self._alerts += alerts
            over = len(self._alerts) - features.ALERTS_LOGGED
            if over > features.ALERTS_LOGGED // 4:  # now and then, as it moves all the others
                del self._alerts[:over]
                self._first += over
        return True

    def _new_alerts(self) -> list[_Alert]:
        found: list[_Alert] = []
        read_to = self._read_to
        while True:
            page = self._store.alert_log(read_to, _PAGE)
            found += [alert for event_id, text in page for alert in self._alert(event_id, text)]
            if page:
                read_to = page[-1][0]
            if len(page) < _PAGE:
                break
        self._read_to = read_to
        return found

    def _alert(self, event_id: EventId, text: bytes) -> Iterator[_Alert]:
        try:
            subject = self._subject.decode(text)
        except msgspec.DecodeError as e:  # written by somebody else; it must not end all streams until it is gone
            _LOG.warning("entry %d-%d of the log is no alert: %s", *event_id, e)
        else:
            yield _Alert(event_id, subject, b"id: %d-%d\nevent: alert\ndata: %b\n\n" % (*event_id, text))


class Stream(Iterator[bytes]):
    """One client's: what the server sends, as it comes. To be closed, also when nothing was taken from it."""

    def __init__(self, streams: Streams, wanted: Wanted, since: int):
        self._streams = streams
        self._wanted = wanted
        self.since = since
        self._place: int | None = None
        self._revenue: bytes | None = None
        self._begun = False
        self._closed = False
        self._heartbeat_at = streams.clock() + _HEARTBEAT_S

    def __next__(self) -> bytes:
        """Some events; nothing after a second without any, or a heartbeat."""
        streams = self._streams
        with streams.news:
            if not self._begun:
                self._begun = True
                return self._beginning()
            streams.news.wait_for(lambda: not streams.runs or self._has_news(), timeout=_LOOK_S)
            frames = self._frames()
        if self._closed or not streams.runs or frames is None:
            self.close()
            raise StopIteration
        now = streams.clock()
        if not frames:
            if now < self._heartbeat_at:
                return b""
            frames = [b": still here\n\n"]
        self._heartbeat_at = now + _HEARTBEAT_S
        return b"".join(frames)

    def find_place(self) -> None:
        """Where to begin, once the store has answered since this was opened."""
        streams = self._streams
        if self._place is None and streams.read_at > self.since:
            after = self._wanted.after
            self._place = streams.end if after is None else streams.place_after(after)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._streams.release(self._wanted)

    def _beginning(self) -> bytes:
        """An id before any alert, so that whoever is cut off before the first comes back to the same place."""
        begin = b"retry: %d\n\n" % _RETRY_MS
        if self._place is not None and "alert" in self._wanted.events:
            begin = b"id: %d-%d\n" % self._streams.last_id(self._place) + begin
        return begin

    def _has_news(self) -> bool:
        streams, events = self._streams, self._wanted.events
        if self._place is None:
            return streams.read_at > self.since
        return ("alert" in events and streams.end > self._place) or (
            "revenue" in events and self._minute not in (None, self._revenue)
        )

    def _frames(self) -> list[bytes] | None:
        """What is new; None when this stream is too slow."""
        streams, wanted = self._streams, self._wanted
        self.find_place()
        if self._place is None:
            return []
        frames: list[bytes] = []
        if "alert" in wanted.events:
            alerts = streams.alerts(self._place)
            if alerts is None:
                return None
            self._place += len(alerts)
            frames = [alert.frame for alert in alerts if self._matches(alert.subject)]
        if "revenue" in wanted.events and self._minute not in (None, self._revenue):
            self._revenue = self._minute
            frames.append(b"event: revenue\ndata: %b\n\n" % self._revenue)
        return frames

    @property
    def _minute(self) -> bytes | None:
        return self._streams.revenue.get(self._wanted.currency)

    def _matches(self, subject: _Subject) -> bool:
        wanted = self._wanted
        return wanted.alert_type in (None, subject.alert_type) and wanted.user_id in (None, subject.user_id)
