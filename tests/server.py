"""The production server as a real process, started as users start it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import serving
from stack.ports import pick_free

ROOT = Path(serving.__file__).parent.parent


class Server:
    def __init__(self, process, port):
        self.process = process
        self.port = port

    def get(self, path):
        """One request on a connection of its own, so that the workers share the requests."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def workers(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def metric(self, name, **labels):
        total = 0.0
        for line in self.get("/metrics")[1].decode().splitlines():
            if re.match(rf"{name}[ {{]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total

    def wait_until(self, condition, what, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if condition():
                    return
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.05)


@contextlib.contextmanager
def running(redis_url, *flags, tmp_path, constants=None):
    """
    Args:
      constants: other values of those that would make a test last long, by their full name.
    """
    port = pick_free()
    changes = [
        f"importlib.import_module({name.rpartition('.')[0]!r}).{name.rpartition('.')[2]} = {value!r}"
        for name, value in (constants or {}).items()
    ]
    start = [
        "-c",
        "; ".join(["import importlib, sys", *changes, "from serving.__main__ import main", "sys.exit(main())"]),
    ]
    flags = ("--port", str(port), "--redis", redis_url, *flags)
    command = [sys.executable, *(start if constants else ("-m", "serving")), *flags]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        server = Server(process, port)
        server.wait_until(lambda: server.get("/api/v1/health/live")[0] == 200, "the first answer")
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        process.stderr.close()
