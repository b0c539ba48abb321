"""The interface of a service; each service is a small class."""

import http.client
import signal
import ssl
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from stack.console import Console
from stack.errors import StackError
from stack.ports import HOST
from stack.secure import ADMIN, Secure

__all__ = ["Place", "Service", "fetch_url", "until"]

_SETTLED_WITHIN_S: Final = 60

_FRONT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stack.tls_front import main; sys.exit(main())"
LOG4J2 = Path(__file__).parent / "log4j2.properties"


@dataclass(frozen=True)
class Place:
    """Where one service of one stack lives: its own folder, and the ports of all services of that stack by name."""

    folder: Path
    ports: Mapping[str, int]

    def address(self, name: str) -> str:
        return f"{HOST}:{self.ports[name]}"

    @property
    def secure(self) -> Secure | None:
        """Of a data folder that was begun with --secure; None in any other."""
        secure = Secure(self.folder.parent / "secure")
        return secure if secure.ca.exists() else None


class Service:
    """One process of the stack."""

    name: str
    ports: ClassVar[Mapping[str, int]]
    """Default port by name; the first is the one that clients use."""
    secure_ports: tuple[str, ...] = ()
    """Those that are listened on only with --secure."""
    needs: tuple[str, ...] = ()
    """Services that must be healthy before this one starts, and that stop after it."""
    start_timeout_s = 120.0
    stop_signal = signal.SIGTERM
    """What asks it to end in good order."""

    def fetch(self, console: Console) -> None:
        """Downloads or builds what the service runs from, unless it is there."""

    def prepare(self, place: Place) -> None:
        """Writes the configuration before each start."""

    def command(self, place: Place) -> list[str]:
        raise NotImplementedError

    def environment(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - for those that override it
        return {}

    def healthy(self, place: Place) -> bool:
        """Whether the service does its work; quick, and False rather than an error when it does not."""
        raise NotImplementedError

    def settle(self, place: Place) -> None:
        """Puts a healthy service into the state that the project relies on; repeatable."""


def behind_tls(place: Place, name: str, to: Path | int, command: Sequence[str], *flags: str) -> list[str]:
    """The command of a service that speaks no TLS, with what does so for it."""
    secure = place.secure
    assert secure
    listen = [f"--port={place.ports[name]}", f"--to={to}", f"--certificate={secure.folder / name / 'both.pem'}"]
    # By its path: the service's folder is where it runs.
    front = [sys.executable, "-c", _FRONT, str(Path(__file__).parent.parent)]
    return [*front, *listen, *flags, "--", *command]


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that a service which answers does in a moment. Raises: StackError: not within a minute."""
    deadline_s = time.monotonic() + _SETTLED_WITHIN_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise StackError(f"not within {_SETTLED_WITHIN_S} s: {what}")
        time.sleep(0.05)


def fetch_url(
    url: str, *, method: str = "GET", body: bytes | None = None, timeout_s: float = 2, secure: Secure | None = None
) -> bytes | None:
    """The answer's body; None when there is no answer or it is not a success.

    Args:
      secure: with whose CA and administrator to connect, if the URL is https.
    """
    headers = {"Content-Type": "application/json"}
    opener = _LOCAL
    if secure is not None and url.startswith("https:"):
        headers["Authorization"] = f"Basic {b64encode(f'{ADMIN}:{secure.password(ADMIN)}'.encode()).decode()}"
        context = ssl.create_default_context(cafile=str(secure.ca))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return bytes(response.read())
    except (OSError, http.client.HTTPException):
        return None


_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business with 127.0.0.1
