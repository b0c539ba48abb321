"""What a fraud team says of an alert: kept beside the alerts, which only the stream writes. `schemas.store_keys` names
the keys, `serving/store.py` reads and writes them.

    sf:alerts:states   HASH  alert_id → the state as JSON, of every alert that somebody has given one
    sf:alerts:labels   ZSET  the same JSON, score = when, in ms; newest 100,000

The JSON is a line of the labels' export, as `transforms.domain.labels` reads it: of `kind` fraud when the alert is
confirmed. It names the order, so that a label outlives its alert.
"""

from __future__ import annotations

import contextlib
from typing import Final, Literal

import msgspec

from schemas.features import rfc3339

__all__ = ["KEPT", "KEPT_S", "NOTE_CHARS", "AlertState", "StateName", "make_state", "state_of", "with_state"]

KEPT: Final = 100_000
KEPT_S: Final = 400 * 24 * 3600
"""After the last label of all: alerts themselves go a week after their user was last seen."""
NOTE_CHARS: Final = 500

StateName = Literal["new", "confirmed", "false_alarm"]


class AlertState(msgspec.Struct):
    """The id comes first, as Redis orders equal scores by the JSON.

    Attributes:
      at: RFC 3339.
      kind: what the backtest makes of it; only `fraud` is a label.
      by: the API key's name; None where no keys are needed.
    """

    alert_id: str
    at: str
    order_id: str
    kind: str
    state: StateName
    by: str | None
    note: str | None
    user_id: str
    alert_type: str


_decode = msgspec.json.Decoder(AlertState).decode


def make_state(
    alert_id: str,
    order_id: str,
    user_id: str,
    alert_type: str,
    state: StateName,
    by: str | None,
    note: str | None,
    at_ms: int,
) -> AlertState:
    kind = "fraud" if state == "confirmed" else state
    return AlertState(alert_id, rfc3339(at_ms), order_id, kind, state, by, note, user_id, alert_type)


def state_of(stored: bytes | None) -> AlertState | None:
    """None: it has none, or a later release wrote one that this one does not know."""
    with contextlib.suppress(msgspec.DecodeError):
        return None if stored is None else _decode(stored)
    return None


def with_state(alert: bytes, state: AlertState | None) -> bytes:
    """An alert's JSON as the API returns it: what the stream wrote, and after it the state that somebody gave it."""
    if state is None:
        return alert
    told = {"state": state.state, "state_by": state.by, "state_at": state.at, "state_note": state.note}
    return alert[:-1] + b"," + msgspec.json.encode(told)[1:]
