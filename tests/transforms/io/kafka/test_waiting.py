from __future__ import annotations

import threading

from tests import live
from transforms.io.kafka.waiting import Waiting


class Connection:
    def __init__(self) -> None:
        self.closed_by: str | None = None

    def close(self) -> None:
        assert self.closed_by is None, "it is closed once"
        self.closed_by = threading.current_thread().name


def test_what_was_put_is_taken_once() -> None:
    waiting, mine, others = Waiting[Connection](), Connection(), Connection()
    waiting.put(0, mine)
    waiting.put(1, others)
    assert waiting.take(0) is mine
    assert waiting.take(0) is None
    assert waiting.take(1) is others
    assert (mine.closed_by, others.closed_by) == (None, None)


def test_a_second_connection_of_a_reader_takes_the_place_of_the_first_which_is_closed() -> None:
    waiting, first, second = Waiting[Connection](), Connection(), Connection()
    waiting.put(0, first)
    waiting.put(0, second)
    assert first.closed_by
    assert waiting.take(0) is second


def test_a_connection_that_nobody_takes_up_is_closed_and_then_no_thread_is_left() -> None:
    waiting, others = Waiting[Connection](kept_s=0.01), set(threading.enumerate())
    for _ in range(2):  # also after a first sweep has ended
        abandoned = Connection()
        waiting.put(0, abandoned)
        live.eventually(lambda each=abandoned: each.closed_by, "the connection is closed", 30, every_s=0.01)  # type: ignore[misc]
        live.eventually(lambda: set(threading.enumerate()) <= others, "the sweep ends", 30, every_s=0.01)
        assert waiting.take(0) is None
        assert abandoned.closed_by == "kafka-waiting"
