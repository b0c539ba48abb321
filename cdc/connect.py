"""Kafka Connect's REST interface, as much of it as the connector needs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from cdc.database import ROLE, SECRET, Database
from cdc.errors import CdcError, WrongInput

__all__ = ["LOCAL", "NAME", "Connect", "State", "connector"]

LOCAL = "http://127.0.0.1:8083"
NAME = "shop"
_FILE = Path(__file__).with_name("connector.json")


class State(NamedTuple):
    connector: str
    """RUNNING, FAILED, PAUSED, …; MISSING when there is none."""
    tasks: tuple[str, ...]
    reason: str
    """Of a failure: the deepest cause, in one line."""

    @property
    def running(self) -> bool:
        return bool(self.tasks) and {self.connector, *self.tasks} == {"RUNNING"}

    @property
    def failed(self) -> bool:
        return "FAILED" in (self.connector, *self.tasks)


def connector(database: Database, secrets: Path) -> dict[str, str]:
    """The connector's configuration.

    Args:
        database: as Connect reaches it.
        secrets: the folder with the role's password, as Connect sees it. The password itself stays there.
    """
    return {
        **json.loads(_FILE.read_text()),
        "database.hostname": database.host,
        "database.port": str(database.port),
        "database.dbname": database.name,
        "database.user": ROLE,
        "database.password": f"${{dir:{secrets.absolute()}:{SECRET}}}",
    }


class Connect:
    """One connector of a Connect cluster. Raises CdcError where the cluster does not answer, or refuses."""

    def __init__(self, url: str, name: str = NAME) -> None:
        """Raises: WrongInput."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WrongInput(f"{url!r} is not http://host:port")
        self._url = url.rstrip("/")
        self._path = f"/connectors/{quote(name, safe='')}"

    def register(self, config: Mapping[str, str], timeout_s: float) -> str:
        """Makes the connector as configured and waits until it and its task run; what failed before is started again.

        Returns: 'created', 'updated', or 'unchanged'.
        """
        deadline = time.monotonic() + timeout_s
        before = self._config(deadline)
        if before != {**config, "name": before.get("name")}:
            self._until("PUT", f"{self._path}/config", deadline, config)
        state = self.state()
        if state.failed:
            self._until("POST", f"{self._path}/restart?includeTasks=true&onlyFailed=true", deadline)
        restarted = time.monotonic()
        while not (state := self.state()).running:
            # What a restart leaves behind may still be shown for a moment.
            if state.failed and time.monotonic() - restarted > 3:
                raise CdcError(f"the connector failed: {state.reason}")
            if time.monotonic() > deadline:
                shown = ", ".join(state.tasks) or "none"
                raise CdcError(f"not running after {timeout_s:.0f} s: connector {state.connector}, tasks {shown}")
            time.sleep(0.2)
        return "unchanged" if before == {**config, "name": before.get("name")} else "updated" if before else "created"

    def state(self) -> State:
        status, answer = self._ask("GET", f"{self._path}/status")
        if status == 404:
            return State("MISSING", (), "")
        if status != 200:
            raise CdcError(f"Connect answered {status}: {_message(answer)}")
        parts = [answer["connector"], *answer["tasks"]]
        traces = [part["trace"] for part in parts if part.get("trace")]
        return State(parts[0]["state"], tuple(part["state"] for part in parts[1:]), _cause(traces[0]) if traces else "")

    def _config(self, deadline: float) -> dict[str, str]:
        while True:
            status, answer = self._ask("GET", f"{self._path}/config")
            if status == 404 and "error_code" in answer:
                return {}
            if status == 200:
                return dict(answer)
            self._bear(status, answer, deadline)

    def _until(self, method: str, path: str, deadline: float, body: Mapping[str, str] | None = None) -> None:
        while True:
            status, answer = self._ask(method, path, body)
            if status < 300:
                return
            self._bear(status, answer, deadline)

    def _bear(self, status: int, answer: Any, deadline: float) -> None:
        """Waits, where it pays to ask again: a cluster that divides its tasks says 409, one that starts 404 or 503."""
        if status not in (404, 409, 503) or time.monotonic() > deadline:
            raise CdcError(f"Connect answered {status}: {_message(answer)}")
        time.sleep(0.2)

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
            self._url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            # Connect tries the database before it answers.
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                return error.code, json.loads(text)
            except ValueError:
                return error.code, {"message": text.decode(errors="replace")}
        except (OSError, ValueError) as error:
            raise CdcError(f"Kafka Connect at {self._url} does not answer: {error}") from None


def _message(answer: Any) -> str:
    text = str(answer.get("message", answer) if isinstance(answer, dict) else answer)
    return " ".join(text.split())[:500]


def _cause(trace: str) -> str:
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return (causes or lines or ["no reason given"])[-1].removeprefix("Caused by: ")[:500]
