"""Separate Python environments for tools whose requirements conflict with ours: Spark, Airflow, peers."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from stack.console import SILENT, Console
from stack.errors import StackError

__all__ = ["python_of"]


def python_of(home: Path, requirements: Path, console: Console = SILENT) -> Path:
    """The Python of the environment in a folder, which is made anew when its requirements changed.

    Raises:
      StackError: it cannot be installed.
    """
    home.mkdir(parents=True, exist_ok=True)
    ready, wanted = home / "ready", hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = home / "venv" / "bin" / "python"
    with (home / "lock").open("w") as lock:  # two at once: the second finds it made
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != wanted:
            console.line(f"{home.name}: installing its environment (once)")
            shutil.rmtree(home / "venv", ignore_errors=True)
            uv = Path(sys.executable).parent / "uv"
            commands: list[list[str | Path]] = [
                [sys.executable, "-m", "venv", "--without-pip", home / "venv"],
                [uv, "pip", "install", "--quiet", "--python", python, "-r", requirements],
            ]
            for command in commands:
                try:
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                except OSError as e:
                    raise StackError(f"{home.name}'s environment could not be made: {e}") from e
                if done.returncode:
                    raise StackError(
                        f"{home.name}'s environment could not be made: {' '.join(done.stderr.split())[-300:]}"
                    )
            ready.write_text(wanted)
    return python
