"""What the stack must know of a service; one small class per service says it."""

import http.client
import signal
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stack.console import Console
from stack.ports import HOST

__all__ = ["Place", "Service", "fetch_url"]

LOG4J2 = Path(__file__).parent / "log4j2.properties"


@dataclass(frozen=True)
class Place:
    """Where one service of one stack lives: its own folder, and the ports of all services of that stack by name."""

    folder: Path
    ports: Mapping[str, int]

    def address(self, name: str) -> str:
        return f"{HOST}:{self.ports[name]}"


class Service:
    """One process of the stack."""

    name: str
    ports: ClassVar[Mapping[str, int]]
    """Default port by name; the first is the one that clients use."""
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


def fetch_url(url: str, *, method: str = "GET", body: bytes | None = None, timeout_s: float = 2) -> bytes | None:
    """The answer's body; None when there is no answer or it is not a success."""
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/json"})
    try:
        with _LOCAL.open(request, timeout=timeout_s) as response:
            return bytes(response.read())
    except (OSError, http.client.HTTPException):
        return None


_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business with 127.0.0.1
