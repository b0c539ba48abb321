"""Stopping by a signal, whenever it comes."""

import subprocess
import sys

from schemas.stopping import Stop

INTERRUPTED = """
import os, random, signal, threading, time
from {module} import {name} as Stop

def interrupt():
    time.sleep(random.random() * 0.002)
    os.kill(os.getpid(), signal.SIGUSR1)

for _ in range(1_000):
    stop = Stop()
    signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    threading.Thread(target=interrupt).start()
    while not stop.is_set():
        stop.wait(0.000_01)
"""


def test_a_signal_that_comes_in_the_middle_of_a_wait_ends_it() -> None:
    command = [sys.executable, "-c", INTERRUPTED.format(module=Stop.__module__, name=Stop.__name__)]
    subprocess.run(command, timeout=300, check=True)


def test_it_waits_for_the_time_or_until_it_is_set() -> None:
    stop = Stop()
    stop.wait(0.01)
    assert not stop.is_set()
    stop.set()
    stop.wait()
    stop.wait()
    assert stop.is_set()
