"""Sends events at their pace and says how it goes."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import IO, Final

from simulator.arrival import arrivals
from simulator.config import Config
from simulator.sinks import Sink
from simulator.ticks import Ticks
from simulator.truth import Truth

__all__ = ["Pace", "Progress", "run"]

_LONGEST_NAP_S: Final = 0.2
# Shorter waits are not worth a system call: the events of two milliseconds go out together.
_SHORTEST_NAP_S: Final = 0.002
_SHOWN_EVERY_S: Final = {True: 0.5, False: 5.0}  # on a terminal; in a log
_FLUSH_S: Final = 30.0


class Pace:
    """When an event may be sent.

    Args:
      shift_ms: clock minus event time; 0: as soon as the clock has reached the event's own time.
    """

    def __init__(self, shift_ms: float):
        self._shift_ms = shift_ms
        self._passed_ms = 0.0

    def missing_s(self, event_time_ms: int) -> float:
        """Seconds to wait; 0 or less: none."""
        due = event_time_ms + self._shift_ms
        if due <= self._passed_ms:
            return 0.0
        self._passed_ms = time.time() * 1000
        return (due - self._passed_ms) / 1000


class Progress:
    """A line with rate and counts: in place on a terminal, else one every few seconds."""

    def __init__(self, truth: Truth, sink: Sink, out: IO[str] = sys.stderr):
        self._truth = truth
        self._sink = sink
        self._out = out
        self._in_place = out.isatty()
        self._every = _SHOWN_EVERY_S[self._in_place]
        self._started = self._shown = time.monotonic()
        self._sent_then = 0

    def show_if_due(self) -> None:
        now = time.monotonic()
        if now - self._shown < self._every:
            return
        rate = (self._truth.sent - self._sent_then) / (now - self._shown)
        self._shown, self._sent_then = now, self._truth.sent
        line = self._line(rate)
        if self._in_place:
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        else:
            line += "\n"
        self._out.write(line)
        self._out.flush()
        self._truth.flush()

    def _line(self, rate: float) -> str:
        truth = self._truth
        parts = [f"{truth.sent:,} sent", f"{rate:,.0f}/s"]
        parts += [f"{topic} {counts.total():,}" for topic, counts in truth.kinds.items()]
        parts.append(f"{truth.rules.total():,} fraud, {truth.total('bad'):,} bad, {truth.total('late'):,} late")
        parts.append(f"{truth.total('duplicate'):,} duplicates")
        if self._sink.failed:
            parts.append(f"{self._sink.failed:,} NOT DELIVERED")
        return " · ".join(parts)

    def summary(self) -> str:
        """What was sent, as a table."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        truth = self._truth
        if self._in_place:
            self._out.write("\r\x1b[K")
        lines = [f"{truth.sent:,} events in {seconds:,.1f} s, {truth.sent / seconds:,.0f}/s"]
        lines.append(f"{'':22}{'sent':>12}{'good':>12}{'bad':>10}{'late':>10}{'duplicates':>12}")
        for topic, counts in truth.topics().items():
            lines.append("  {:20}{sent:12,}{good:12,}{bad:10,}{late:10,}{duplicates:12,}".format(topic, **counts))
        if truth.rules:
            lines.append("  planted fraud: " + ", ".join(f"{rule} {n:,}" for rule, n in sorted(truth.rules.items())))
        if self._sink.failed:
            lines.append(f"  NOT DELIVERED: {self._sink.failed:,}")
        return "\n".join(lines)


def run(
    config: Config, sink: Sink, truth: Truth, progress: Progress, pace: Pace | None, stop: threading.Event, paced: bool
) -> None:
    """Sends everything, until the end or until `stop` is set; then what was held back, and the rest of the truth.

    Args:
      pace: None: no event waits.
      paced: events wait for their time of arrival, else for their event time only.
    """
    ticks = Ticks(config)
    for arrival_ms, event in arrivals(config, sink.wire, ticks):
        while pace and (missing := pace.missing_s(arrival_ms if paced else event.timestamp_ms)) > 0:
            sink.poll()
            progress.show_if_due()
            if stop.wait(min(max(missing, _SHORTEST_NAP_S), _LONGEST_NAP_S)):
                break
        truth.saw(event, sink.send(event))
        if not truth.sent & 0xFF:
            sink.poll()
            progress.show_if_due()
        if stop.is_set():
            ticks.stop()
    sink.close(_FLUSH_S)
    truth.close(sink.failed)
