"""Planted fraud: patterns of orders, each stated together with the alerts it must raise.

The alerts follow from the fraud semantics (docs/semantics.md: five rules; bounds inclusive, amounts strict) and are
stated by hand beside each order, not computed, so that the truth file is an independent witness. A pattern without
alerts is a near miss: one step beyond a bound.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from schemas.events import OrderStatus

__all__ = ["PATTERNS", "Pattern", "Patterns", "Step"]

BURST: Final = "HIGH_VALUE_BURST"
RAPID: Final = "RAPID_ORDERS"
FIRST: Final = "HIGH_VALUE_FIRST_ORDER"
LOCATION: Final = "LOCATION_ANOMALY"
SUSPICIOUS: Final = "SUSPICIOUS_PATTERN"

_S: Final = 1_000
_MIN: Final = 60_000
_HIGH: Final = 600_000  # 6000.00 TRY
_EXACT: Final = 500_000  # 5000.00 TRY: not above the bound
_LOW: Final = 45_000


class Step(NamedTuple):
    """One order record of a pattern: when (ms after the first), which, and the rules it completes."""

    at_ms: int
    amount_minor: int
    alerts: tuple[str, ...] = ()
    status: OrderStatus = "CREATED"
    order: int | None = None  # a later status of the order of that step; None: an order of its own
    away: bool = False  # shipped to another region than the user's own
    first: bool = False


class Pattern(NamedTuple):
    name: str
    rule: str
    steps: tuple[Step, ...]

    @property
    def is_near_miss(self) -> bool:
        return not any(step.alerts for step in self.steps)


def _cancelled(*times: int, alerts_from: int = 2) -> tuple[Step, ...]:
    return tuple(
        Step(at, _LOW, (SUSPICIOUS,) if i >= alerts_from else (), status="CANCELLED") for i, at in enumerate(times)
    )


# These complete within seconds and come first, the first of them with two rules: a minute's demo shows all five rules.
_QUICK: Final = (
    Pattern("burst", BURST, (Step(0, _HIGH), Step(8 * _S, 720_000), Step(15 * _S, 655_050, (BURST, RAPID)))),
    Pattern("high_first", FIRST, (Step(0, 749_990, (FIRST,), first=True),)),
    Pattern("two_places", LOCATION, (Step(0, _LOW), Step(6 * _S, 38_050, (LOCATION,), away=True))),
    Pattern("cancels", SUSPICIOUS, _cancelled(0, 6 * _S, 12 * _S)),
    Pattern("rapid", RAPID, (Step(0, _LOW), Step(5 * _S, 22_090), Step(9 * _S, 61_000, (RAPID,)))),
)
_SLOW: Final = (
    Pattern(
        "burst_exactly_5_min",
        BURST,
        (Step(0, _EXACT + 1), Step(2 * _MIN, _HIGH), Step(5 * _MIN, _HIGH, (BURST, RAPID))),
    ),
    Pattern("burst_1_ms_beyond", BURST, (Step(0, _HIGH), Step(2 * _MIN, _HIGH), Step(5 * _MIN + 1, _HIGH))),
    Pattern(
        "burst_with_exactly_5000",
        BURST,
        (Step(0, _HIGH), Step(40 * _S, _EXACT), Step(90 * _S, _HIGH, (RAPID,))),
    ),
    Pattern(
        "burst_sliding",
        BURST,
        (
            Step(0, _HIGH),
            Step(2 * _MIN, _HIGH),
            Step(5 * _MIN, _HIGH, (BURST, RAPID)),
            Step(7 * _MIN, _HIGH, (BURST, RAPID)),
            Step(12 * _MIN, _HIGH),
        ),
    ),
    Pattern("burst_at_one_instant", BURST, (Step(0, _HIGH), Step(0, _HIGH), Step(0, _HIGH, (BURST, RAPID)))),
    Pattern("rapid_exactly_5_min", RAPID, (Step(0, _LOW), Step(4 * _MIN, _LOW), Step(5 * _MIN, _LOW, (RAPID,)))),
    Pattern("rapid_1_ms_beyond", RAPID, (Step(0, _LOW), Step(4 * _MIN, _LOW), Step(5 * _MIN + 1, _LOW))),
    Pattern(
        "rapid_five_orders",
        RAPID,
        (
            Step(0, _LOW),
            Step(50 * _S, _LOW),
            Step(100 * _S, _LOW, (RAPID,)),
            Step(170 * _S, _LOW, (RAPID,)),
            Step(230 * _S, _LOW, (RAPID,)),
        ),
    ),
    Pattern(
        "rapid_only_with_statuses",
        RAPID,
        (
            Step(0, _LOW),
            Step(30 * _S, _LOW, status="CONFIRMED", order=0),
            Step(60 * _S, _LOW),
            Step(95 * _S, _LOW, status="CANCELLED", order=2),
        ),
    ),
    Pattern("first_exactly_5000", FIRST, (Step(0, _EXACT, first=True),)),
    Pattern("first_one_kurus_above", FIRST, (Step(0, _EXACT + 1, (FIRST,), first=True),)),
    Pattern(
        "high_first_confirmed",
        FIRST,
        (
            Step(0, 890_000, (FIRST,), first=True),
            Step(70 * _S, 890_000, status="CONFIRMED", order=0, first=True),
        ),
    ),
    Pattern("two_places_exactly_10_min", LOCATION, (Step(0, _LOW), Step(10 * _MIN, _LOW, (LOCATION,), away=True))),
    Pattern("two_places_1_ms_beyond", LOCATION, (Step(0, _LOW), Step(10 * _MIN + 1, _LOW, away=True))),
    Pattern(
        "there_and_back",
        LOCATION,
        (Step(0, _LOW), Step(4 * _MIN, _LOW, (LOCATION,), away=True), Step(9 * _MIN, _LOW, (LOCATION,))),
    ),
    Pattern(
        "moved_for_good",
        LOCATION,
        # The third order differs from the first one only, which is exactly ten minutes old.
        (Step(0, _LOW), Step(6 * _MIN, _LOW, (LOCATION,), away=True), Step(10 * _MIN, _LOW, (LOCATION,), away=True)),
    ),
    Pattern("cancels_exactly_30_min", SUSPICIOUS, _cancelled(0, 11 * _MIN, 30 * _MIN)),
    Pattern("cancels_1_ms_beyond", SUSPICIOUS, _cancelled(0, 11 * _MIN, 30 * _MIN + 1, alerts_from=3)),
    Pattern("cancels_four", SUSPICIOUS, _cancelled(0, 7 * _MIN, 15 * _MIN, 29 * _MIN)),
    Pattern(
        "cancels_of_created_orders",
        SUSPICIOUS,
        (
            Step(0, _LOW),
            Step(2 * _MIN, _LOW, status="CANCELLED", order=0),
            Step(6 * _MIN, _LOW),
            Step(9 * _MIN, _LOW, status="CANCELLED", order=2),
            Step(12 * _MIN, _LOW),
            Step(13 * _MIN, _LOW, (SUSPICIOUS,), status="CANCELLED", order=4),
        ),
    ),
    Pattern(
        "everything",
        BURST,
        (
            Step(0, 900_000, (FIRST,), first=True),
            Step(60 * _S, 900_000, (LOCATION,), away=True),
            Step(120 * _S, 900_000, (LOCATION, BURST, RAPID)),
        ),
    ),
)
PATTERNS: Final = _QUICK + _SLOW


class Patterns:
    """Which pattern comes next, and when: the first round in order, then shuffled, paid for by ordinary orders."""

    def __init__(self, share: float, rng: random.Random):
        self._per_order = share / (1 - share)
        self._rng = rng
        self._round: list[Pattern] = list(reversed(PATTERNS))
        self._credit = 0.0

    def after_order(self) -> Pattern | None:
        """To be called after each ordinary order record; the pattern that starts now, if any.

        The first starts at once and runs into debt, so that even a short run shows one.
        """
        self._credit += self._per_order
        if self._credit <= 0:
            return None
        if not self._round:
            self._round = list(PATTERNS)
            self._rng.shuffle(self._round)
        pattern = self._round.pop()
        self._credit -= len(pattern.steps)
        return pattern
