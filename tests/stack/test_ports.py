import multiprocessing
import os
import socket
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from stack.ports import HOST, holder, is_free, pick_free


def test_a_port_with_a_listener_is_not_free_and_its_holder_is_named() -> None:
    port = pick_free()
    assert is_free(port)
    with socket.create_server((HOST, port)):
        assert not is_free(port)
        assert f"pid {os.getpid()}" in holder(port)


def test_a_listener_on_all_interfaces_takes_the_port_too() -> None:
    port = pick_free()
    with socket.create_server(("0.0.0.0", port)):
        assert not is_free(port)


def test_processes_that_pick_at_the_same_time_get_different_ports() -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        picked = [pool.submit(pick_free) for _ in range(200)]
    assert len({each.result() for each in picked}) == 200


def test_after_the_last_port_and_after_an_unreadable_turn_comes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = pick_free()
    (turn,) = tmp_path.iterdir()
    for last in ("31999", "no number", ""):
        turn.write_text(last)
        assert pick_free() == first
    with socket.create_server((HOST, first + 1)):
        assert pick_free() > first + 1
