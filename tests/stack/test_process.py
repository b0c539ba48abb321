import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.process import Process


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "service" / "pid"
    Process(tmp_path / "service" / "pid").kill()


def start(pid_file: Path, *command: str) -> bool:
    pid_file.parent.mkdir(exist_ok=True)
    return Process(pid_file).start(command, {}, pid_file.parent, pid_file.parent / "log")


def test_is_found_by_its_pid_file_and_leads_a_session_of_its_own(pid_file: Path) -> None:
    assert start(pid_file, "sleep", "60")
    pid = Process(pid_file).pid()
    assert pid
    assert os.getsid(pid) == pid != os.getsid(0)


def test_is_not_started_twice(pid_file: Path) -> None:
    assert start(pid_file, "sleep", "60")
    pid = Process(pid_file).pid()
    assert not start(pid_file, "sleep", "60")
    assert Process(pid_file).pid() == pid


def test_a_number_in_the_file_that_belongs_to_a_stranger_is_not_taken_for_it(pid_file: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    pid_file.parent.mkdir()
    pid_file.write_text(str(stranger.pid))
    Process(pid_file).kill()
    assert Process(pid_file).pid() is None
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_outlives_a_starter_that_is_killed_and_is_still_found(pid_file: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from stack.process import Process; f = Path(sys.argv[1]);"
        "Process(f).start(['sleep', '60'], {}, f.parent, f.parent / 'log'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    pid_file.parent.mkdir()
    starter = subprocess.run([sys.executable, "-c", code, str(pid_file)], check=False)
    assert starter.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while not Process(pid_file).pid() and time.monotonic() < deadline:
        time.sleep(0.01)
    process = Process(pid_file)
    assert process.pid()
    process.signal(signal.SIGTERM)
    assert process.wait(5)
    assert process.pid() is None


def test_counts_as_running_until_its_last_child_is_gone(pid_file: Path) -> None:
    assert start(pid_file, "/bin/sh", "-c", "sleep 60 & exit 0")
    process = Process(pid_file)
    assert not process.wait(0.3)
    process.signal(signal.SIGTERM)
    assert process.wait(5)
