"""Clicks → sessions: a session is a user's clicks each of which comes less than the gap after another of them.

Clicks are first aggregated into bursts: clicks that arrived at about the same time and are less than the gap apart. A
session is the sum of its bursts, and depends neither on the order in which clicks arrived nor on how they were divided
into bursts.

Only sessions that are over keep their start. A click that comes out of order can begin a session earlier, or join two
of them, and what has been said of the later start must be taken back. So bursts carry every start that a session has
had before, as its clicks came one by one. See docs/adr/0010.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from schemas.events import Pane, UserSession
from schemas.features import TOMBSTONE_VERSION
from transforms.domain.versions import MAX_LONG, version

__all__ = [
    "KINDS",
    "PURCHASE",
    "Burst",
    "Click",
    "PackedBurst",
    "add_burst",
    "add_click",
    "decode_burst",
    "encode_burst",
    "former_starts",
    "retraction",
    "session_of",
]

Click = tuple[str, str, int, int, str, str, str | None, int]
"""user_id, event_id, event time in ms, kind, device, region, category, revenue of a purchase in minor units."""
Facets = tuple[str, str, str | None]
"""Device, region, category."""
PackedBurst = tuple[int, int, int, list[int], int, list[tuple[str, str, str | None, int]], list[int], list[int]]
"""How many hand-overs of its shard came before it; then what `Burst` has."""

KINDS: Final = {"PAGE_VIEW": 0, "PRODUCT_VIEW": 1, "ADD_TO_CART": 2, "PURCHASE": 3}
"""The types of click that are counted apart; all others are of kind 4."""
PURCHASE: Final = KINDS["PURCHASE"]

decode_burst: Callable[[bytes], PackedBurst] = msgspec.msgpack.Decoder(PackedBurst).decode
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


class Burst:
    """Clicks of one user, each less than the gap from another.

    Attributes:
      start_ms, end_ms: of the first and the last of them.
      counts: clicks by kind.
      revenue_minor: of the purchases.
      facets: clicks by device, region and category.
      former: the starts that it has had before, as clicks came.
      overtaken: starts that it would have had, if clicks had not waited while later ones went on.
    """

    __slots__ = ("counts", "end_ms", "facets", "former", "overtaken", "revenue_minor", "start_ms")

    def __init__(self, click: Click):
        _, _, at_ms, kind, device, region, category, self.revenue_minor = click
        self.start_ms = self.end_ms = at_ms
        self.counts = [0, 0, 0, 0, 0]
        self.counts[kind] = 1
        self.facets: dict[Facets, int] = {(device, region, category): 1}
        self.former: list[int] = []
        self.overtaken: list[int] = []

    @classmethod
    def unpacked(cls, packed: PackedBurst) -> Burst:
        """The burst that `encode_burst` was given."""
        burst = cls.__new__(cls)
        _, burst.start_ms, burst.end_ms, burst.counts, burst.revenue_minor, facets, burst.former, burst.overtaken = (
            packed
        )
        burst.facets = {(device, region, category): clicks for device, region, category, clicks in facets}
        return burst

    def take_in(self, other: Burst) -> None:
        """Becomes both; the starts that this leaves behind are the caller's matter."""
        self.start_ms = min(self.start_ms, other.start_ms)
        self.end_ms = max(self.end_ms, other.end_ms)
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.revenue_minor += other.revenue_minor
        for facets, clicks in other.facets.items():
            self.facets[facets] = self.facets.get(facets, 0) + clicks
        self.former += other.former
        self.overtaken += other.overtaken


def add_click(bursts: list[Burst], click: Click, gap_ms: int) -> None:
    """Adds a click to a user's bursts, which stay the gap or more from each other; the latest is the last."""
    at_ms = click[2]
    if bursts:
        last = bursts[-1]
        if last.start_ms <= at_ms < last.end_ms + gap_ms:  # nearly every click
            if at_ms > last.end_ms:
                last.end_ms = at_ms
            last.counts[click[3]] += 1
            last.revenue_minor += click[7]
            facets = click[4:7]
            last.facets[facets] = last.facets.get(facets, 0) + 1
            return
    add_burst(bursts, Burst(click), gap_ms)


def add_burst(bursts: list[Burst], burst: Burst, gap_ms: int) -> None:
    """Adds a burst to a user's, which stay the gap or more from each other; the latest is the last."""
    near = [b for b in bursts if b.start_ms < burst.end_ms + gap_ms and burst.start_ms < b.end_ms + gap_ms]
    for other in near:
        burst.take_in(other)
        bursts.remove(other)
    burst.former += [b.start_ms for b in near if b.start_ms != burst.start_ms]
    bursts.append(burst)
    bursts.sort(key=lambda b: b.start_ms)


def encode_burst(epoch: int, burst: Burst) -> bytes:
    """The burst as `PackedBurst`; `epoch` grows with every hand-over of its shard."""
    return _encode(
        (
            epoch,
            burst.start_ms,
            burst.end_ms,
            burst.counts,
            min(burst.revenue_minor, MAX_LONG),
            [(*facets, clicks) for facets, clicks in burst.facets.items()],
            burst.former,
            burst.overtaken,
        )
    )


def session_of(user_id: str, bursts: list[PackedBurst], pane: Pane) -> UserSession:
    """The session that the bursts are. Its version grows with its clicks."""
    start_ms = min(burst[1] for burst in bursts)
    end_ms = max(burst[2] for burst in bursts)
    page_views, product_views, add_to_carts, purchases, others = map(
        sum, zip(*(burst[3] for burst in bursts), strict=True)
    )
    clicks = page_views + product_views + add_to_carts + purchases + others
    facets = [facet for burst in bursts for facet in burst[5]]
    return UserSession(
        session_id=f"{user_id}:{start_ms}",
        user_id=user_id,
        session_start=start_ms,
        session_end=end_ms,
        duration_seconds=(end_ms - start_ms) // 1000,
        page_views=page_views,
        product_views=product_views,
        add_to_carts=add_to_carts,
        purchases=purchases,
        revenue_minor=min(sum(burst[4] for burst in bursts), MAX_LONG),
        device_type=_most((device, n) for device, _, _, n in facets) or "",
        geo_region=_most((region, n) for _, region, _, n in facets) or "",
        primary_category=_most((category, n) for _, _, category, n in facets if category is not None),
        pane=pane,
        version=version(clicks, pane),
    )


def _most(counts: Iterable[tuple[str, int]]) -> str | None:
    """The text counted most, the smallest of several; None when there is none."""
    total: dict[str, int] = {}
    for text, n in counts:
        total[text] = total.get(text, 0) + n
    if len(total) < 2:
        return next(iter(total), None)
    return min(total, key=lambda text: (-total[text], text))


def former_starts(bursts: list[PackedBurst], gap_ms: int) -> list[int]:
    """Where the session of these bursts, or one that it took in, began before an earlier click came.

    It holds every start that can have been given out: a click was the first of its session when it came, or would have
    been if none had overtaken it, or never.
    """
    if len(bursts) == 1 and not bursts[0][7]:
        return bursts[0][6]
    starts: dict[int, None] = {}
    spans: list[tuple[int, int]] = []  # the sessions so far: from the first click to the gap after the last
    for _, start, end, _, _, _, former, overtaken in sorted(bursts, key=lambda burst: burst[:2]):
        reach = end + gap_ms
        near = [span for span in spans if span[0] < reach and start < span[1]]
        starts |= dict.fromkeys(at for at in (start, *former) if not any(a <= at < b for a, b in near))
        starts |= dict.fromkeys(overtaken)
        if near:
            spans = [span for span in spans if span not in near]
        spans.append((min(start, *(a for a, _ in near)), max(reach, *(b for _, b in near))) if near else (start, reach))
    starts.pop(min(burst[1] for burst in bursts), None)
    return list(starts)


def retraction(user_id: str, start_ms: int, pane: Pane) -> UserSession:
    """Takes back the session of that start: it is part of another, and as sessions only merge, it never comes back."""
    return UserSession(
        session_id=f"{user_id}:{start_ms}",
        user_id=user_id,
        session_start=start_ms,
        session_end=start_ms,
        duration_seconds=0,
        page_views=0,
        product_views=0,
        add_to_carts=0,
        purchases=0,
        revenue_minor=0,
        device_type="",
        geo_region="",
        primary_category=None,
        pane=pane,
        version=TOMBSTONE_VERSION,
        deleted=True,
    )
