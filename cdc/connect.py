"""Kafka Connect's REST interface, as much of it as the connector needs."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from cdc.database import ROLE, SECRET, Database
from cdc.errors import CdcError, WrongInput
from cdc.server import EPOCH
from schemas.addresses import Address, shown

__all__ = ["LOCAL", "NAME", "Connect", "State", "connector", "settings"]

LOCAL = "http://127.0.0.1:8083"
NAME = "shop"
# Connect calls a task RUNNING before it has spoken to the database.
_STEADY_S = 2.0
_FRAME = re.compile(r"at [\w.$/<>@-]+\(|\.\.\. \d+ more$|Suppressed: ")
_FILE = Path(__file__).with_name("connector.json")


class State(NamedTuple):
    connector: str
    """RUNNING, FAILED, PAUSED, …; MISSING when there is none."""
    tasks: tuple[str, ...]
    reason: str
    """Of a failure: the deepest cause, whole, in one line."""

    @property
    def running(self) -> bool:
        return bool(self.tasks) and {self.connector, *self.tasks} == {"RUNNING"}

    @property
    def failed(self) -> bool:
        return "FAILED" in (self.connector, *self.tasks)


def connector(database: Database, secrets: Path, epoch: str) -> dict[str, str]:
    """The connector's configuration.

    Args:
        epoch: see `cdc.server.epoch_of`.
        database: as Connect reaches it.
        secrets: the folder with the role's password, as Connect sees it. The password itself stays there.
    """
    return {
        **settings(),
        "database.hostname": database.host,
        "database.port": str(database.port),
        "database.dbname": database.name,
        "database.user": ROLE,
        "database.password": f"${{dir:{secrets.absolute()}:{SECRET}}}",
        EPOCH: epoch,
    }


def settings() -> dict[str, str]:
    """What is the same wherever the database is."""
    return dict(json.loads(_FILE.read_text()))


class Connect:
    """One connector of a Connect cluster. Raises CdcError where the cluster does not answer, or refuses."""

    def __init__(self, url: str, name: str = NAME) -> None:
        """Raises: WrongInput."""
        try:
            self._url = Address(url.rstrip("/"))
        except ValueError:
            raise WrongInput(f"{shown(url)!r} is not http://host:port") from None
        self._path = f"/connectors/{quote(name, safe='')}"

    def registered(self, timeout_s: float) -> dict[str, str]:
        """The configuration that it has; empty when there is no such connector."""
        return self._config(time.monotonic() + timeout_s)

    def register(self, config: Mapping[str, str], timeout_s: float) -> str:
        """Makes the connector as configured and waits until it and its task run; what failed before is started again.

        Returns: what had to be done: 'created', 'updated', 'restarted', or 'unchanged'.
        """
        deadline = time.monotonic() + timeout_s
        before = self._config(deadline)
        changed = before != {**config, "name": before.get("name")}
        if changed:
            self._until("PUT", f"{self._path}/config", deadline, config)
        restarted = self.state().failed
        if restarted:
            self._until("POST", f"{self._path}/restart?includeTasks=true&onlyFailed=true", deadline)
        self._wait(deadline, _STEADY_S if changed or restarted else 0)
        return "updated" if before and changed else "created" if changed else "restarted" if restarted else "unchanged"

    def begin_anew(
        self, timeout_s: float, drop_slot: Callable[[], None], config: Mapping[str, str] | None = None
    ) -> None:
        """Has the connector forget how far it was, and wait until it runs again: it then takes its initial snapshot.

        Args:
            drop_slot: called while the connector is stopped.
            config: what to bring it up to meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        self._until("PUT", f"{self._path}/stop", deadline)
        while (state := self.state()).connector != "STOPPED" or state.tasks:
            if time.monotonic() > deadline:
                raise CdcError(f"not stopped in time: connector {state.connector}")
            time.sleep(0.1)
        self._until("DELETE", f"{self._path}/offsets", deadline)
        drop_slot()
        if config:
            self._until("PUT", f"{self._path}/config", deadline, config)
        self._until("PUT", f"{self._path}/resume", deadline)
        self._wait(deadline, _STEADY_S)

    def _wait(self, deadline: float, steady_s: float) -> None:
        """Until connector and task have run for so long."""
        begin = time.monotonic()
        since: float | None = None
        while True:
            state, now = self.state(), time.monotonic()
            since = (since or now) if state.running else None
            if since and now - since >= steady_s:
                return
            # A failure from before the restart may still be shown for a moment.
            if state.failed and now - begin > _STEADY_S:
                raise CdcError(f"the connector failed: {state.reason}")
            if now > deadline:
                tasks = ", ".join(state.tasks) or "none"
                raise CdcError(f"not running in time: connector {state.connector}, tasks {tasks}")
            time.sleep(0.1)

    def wait_for_position(self, timeout_s: float) -> bool:
        """Whether Connect has stored, in that time, how far the connector is, after its initial snapshot.

        Until then a Connect that is killed begins with a new snapshot, and rows that were deleted in between stay in
        the topics: no record tells of them. A cluster that cannot tell (Kafka before 3.6) is not waited for.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            status, answer = self._ask("GET", f"{self._path}/offsets")
            if status in (404, 405):
                return True
            if (state := self.state()).failed:
                raise CdcError(f"the connector failed: {state.reason}")
            offsets = [stored["offset"] or {} for stored in answer.get("offsets", ())] if status == 200 else []
            if offsets and not any("snapshot" in offset for offset in offsets):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)

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
            if status == 404:
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
        """Waits, where it pays to ask again: a cluster that divides its tasks says 409, one that starts 503."""
        if status not in (409, 503) or time.monotonic() > deadline:
            raise CdcError(f"Connect answered {status}: {_message(answer)}")
        time.sleep(0.2)

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self._url.user is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(self._url.user.encode()).decode()}"
        request = urllib.request.Request(f"{self._url}{path}", data, headers, method=method)  # noqa: S310 - it is http
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
            raise CdcError(f"Kafka Connect at {self._url} does not answer: {self._url.hide(error)}") from None


def _message(answer: Any) -> str:
    """Connect's own words, without the frame that it puts around the errors of a configuration."""
    text = " ".join(str(answer.get("message", answer) if isinstance(answer, dict) else answer).split())
    text = text.partition(" error(s): ")[2] or text
    text = text.partition(" You can also find the above list")[0]
    if "password authentication failed" in text:
        text += f" (is {SECRET}, in the folder of --secrets as Connect sees it, what `cdc setup` used?)"
    return text


def _cause(trace: str) -> str:
    """Without the frames; a cause may have several lines."""
    said = [line.strip() for line in trace.splitlines() if line.strip() and not _FRAME.match(line.strip())]
    causes = " ".join(said).split("Caused by: ")
    return causes[-1].strip() or "no reason given"
