"""So many at once, and nothing that waits is forgotten."""

from __future__ import annotations

import threading

import pytest

from serving.turns import Turns


@pytest.mark.parametrize("number", [1, 3])
def test_at_most_so_many_jobs_run_at_once_and_each_runs_once(number):
    turns = Turns(number)
    lock, done, all_done = threading.Lock(), [], threading.Event()
    running, most = 0, 0

    def job(i):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        sum(range(500))
        with lock:
            running -= 1
            done.append(i)
            if len(done) == 2_000:
                all_done.set()

    def ask(first):
        for i in range(first, 2_000, 8):
            (turns.here if i % 3 else turns.elsewhere)(lambda i=i: job(i))

    callers = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert all_done.wait(30)
    assert sorted(done) == list(range(2_000))
    assert 1 <= most <= number
    assert turns.waiting == 0


def test_what_waits_comes_in_order_and_is_done_by_whoever_is_free():
    turns = Turns(1)
    go_on, begun, order = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go_on.wait(30)

    holder = threading.Thread(target=turns.here, args=(first,))
    holder.start()
    assert begun.wait(30)
    for i in range(3):
        turns.here(lambda i=i: order.append((i, threading.current_thread())))  # returns at once
    assert turns.waiting == 3
    go_on.set()
    holder.join(30)
    assert order == [(i, holder) for i in range(3)]


def test_a_job_that_fails_gives_its_turn_back(caplog):
    turns, found = Turns(1), []
    turns.here(lambda: 1 // 0)
    turns.here(lambda: found.append(1))
    assert found == [1]
    assert "ZeroDivisionError" in caplog.text
