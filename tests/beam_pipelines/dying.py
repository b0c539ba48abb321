"""A worker that dies while it decodes."""

from __future__ import annotations

import mmap
import os
import signal
from pathlib import Path

from schemas.logs import Logs
from tests.build import block
from transforms.in_hand import SIZE, decoding, keep_in


def work(control: str, worker_id: str, in_hand: str, deaths: int, as_: Logs) -> None:
    """As `worker_pool._work`; `control` says how it ends."""
    with Path(in_hand).open("r+b") as file:
        keep_in(mmap.mmap(file.fileno(), SIZE), deaths)
    with decoding(block([b"a"], topic="done with")):
        pass
    with decoding(block([b"x", b"y"], topic="transactions.orders", partition=3, first_offset=41)):
        if control == "waits":
            signal.pause()
        elif control.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[control])
        if control != "0":
            os._exit(int(control))  # as a library might
