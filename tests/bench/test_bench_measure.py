"""Measuring sees the whole process tree, ends what it started, and says in one line what went wrong."""

import os
import sys
import time
from pathlib import Path

import pytest

from bench.measure import CommandFailed, Usage, measure

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="samples /proc")


def run(code: str, folder: Path, timeout_s: float = 30) -> Usage:
    return measure([sys.executable, "-c", code], folder / "log.txt", timeout_s=timeout_s)


def test_output_and_time_are_returned(tmp_path):
    usage = run("import time; time.sleep(0.5); print('done')", tmp_path)
    assert usage.output == "done\n"
    assert usage.seconds >= 0.5


SPIN = "import time\nwhile time.process_time() < 0.6: pass\n"


@linux
def test_cpu_of_children_counts_also_when_nobody_waited_for_them(tmp_path):
    start = f"p = subprocess.Popen([sys.executable, '-c', {SPIN!r}], stdout=subprocess.PIPE)"
    orphan = f"import subprocess, sys, time; {start}; p.stdout.read(); time.sleep(1)"  # it has ended, and is a zombie
    assert run(orphan, tmp_path).cpu_seconds >= 0.5
    waited = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"
    assert run(waited, tmp_path).cpu_seconds >= 0.6


@linux
def test_memory_is_that_of_all_processes_together(tmp_path):
    hold = "x = bytearray(60_000_000); print(flush=True); import time; time.sleep(1.5)"
    start = f"p = subprocess.Popen([sys.executable, '-c', {hold!r}], stdout=subprocess.PIPE)"
    both = f"import subprocess, sys; {start}; p.stdout.readline(); {hold}; p.wait()"
    assert run(hold, tmp_path).peak_mb > 57
    assert run(both, tmp_path).peak_mb > 115


def test_a_failing_command_is_quoted(tmp_path):
    with pytest.raises(CommandFailed, match=r"exit status 3: no such topic"):
        run("import sys; print('no such topic', file=sys.stderr); sys.exit(3)", tmp_path)


@linux
def test_a_command_that_hangs_is_ended_with_its_children(tmp_path):
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    with pytest.raises(CommandFailed, match="not done after 2 s"):
        run(parent, tmp_path, timeout_s=2)
    deadline = time.monotonic() + 10
    while is_running(int(pid_file.read_text())):
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
