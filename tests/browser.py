"""Debian's Chromium on the real dashboard: the server as users start it, and traffic written as the jobs write it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from stack.ports import HOST, pick_free
from tests.build import MINUTE, SECOND, alert, minute, session
from tests.live import eventually
from tests.store import order, write

ROOT = Path(__file__).parent.parent
HOW_TO_GET_IT = "no Chromium on this machine; on Debian: apt-get install --no-install-recommends chromium"

# A closed network refuses what a browser asks of its maker, many times over; root has no sandbox.
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
CATEGORIES = ("Elektronik", "Ayakkabı", "Kadın Giyim", "Erkek Giyim", "Ev & Yaşam", "Kozmetik", "Kitap", "Oyuncak")
REGIONS = ("İstanbul", "Ankara", "İzmir", "Bursa", "Antalya", "Adana", "Konya", "Trabzon")
RULES = {
    "HIGH_VALUE_BURST": (0.95, "3 CREATED orders above 5000.00 TRY within 5 min"),
    "RAPID_ORDERS": (0.85, "3 CREATED orders within 5 min"),
    "HIGH_VALUE_FIRST_ORDER": (0.75, "first order above 5000.00 TRY"),
    "LOCATION_ANOMALY": (0.7, "orders from two regions within 10 min"),
    "SUSPICIOUS_PATTERN": (0.6, "3 CANCELLED orders within 30 min"),
}


def executable() -> str | None:
    """Where a Chromium is; playwright would look only for those that it has downloaded itself."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=list(_FLAGS)) as it:
        yield it


@contextlib.contextmanager
def needed() -> Iterator[Browser]:
    """Chromium for a test, which is skipped without it; with CI=true it fails."""
    path = executable()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(HOW_TO_GET_IT)
        pytest.skip(HOW_TO_GET_IT)
    with chromium(path) as browser:
        yield browser


class Server:
    """`python -m serving` on a port of its own, which can be stopped and started again."""

    def __init__(self, redis_url: str, log: Path, *flags: str):
        self._log, self._port = log, pick_free()
        self._command = [sys.executable, "-m", "serving", f"--port={self._port}", f"--redis={redis_url}", *flags]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        eventually(self._answers, f"{self.url} answers", 30)

    def stop(self) -> None:
        """As an operator does; whatever is left after ten seconds is killed."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def write_an_hour(url: str, seed: int = 7) -> None:
    """An hour of a shop that is doing well: revenue by the minute, visitors, and alerts of every rule."""
    chance = random.Random(seed)
    now = time.time_ns() // 1_000_000
    first = now // MINUTE * MINUTE - 59 * MINUTE
    rows = []
    for i in range(60):
        start = first + i * MINUTE
        gmv = [int(chance.lognormvariate(12.3 - k * 0.22, 0.35)) for k in range(len(CATEGORIES))]
        orders = sum(gmv) // 120_000 + 1
        rows.append(minute(start, gmv_minor=sum(gmv), order_count=orders, unique_users=orders, first_time_orders=2))
        rows += [minute(start, "category", name, gmv_minor=n) for name, n in zip(CATEGORIES, gmv, strict=True)]
        rows += [minute(start, "region", name, gmv_minor=n) for name, n in zip(REGIONS, gmv[::-1], strict=True)]
    write(url, rows)
    write(url, [_visit(chance, i, now) for i in range(40)])
    alerts = [an_alert(f"old-{i:03}", now - chance.randrange(50 * MINUTE), list(RULES)[i % 5]) for i in range(60)]
    write(url, alerts)
    write(
        url, [order(id_, a.event_time - 9_000, a.amount_minor, a.user_id) for a in alerts for id_ in a.related_events]
    )


def _visit(chance: random.Random, i: int, now: int):
    lasts = chance.randrange(20, 900)
    return session(
        f"user-{chance.randrange(100_000):06}",
        now - lasts * SECOND,
        session_end=now - chance.randrange(20) * SECOND,
        duration_seconds=lasts,
        page_views=1 + lasts // 60,
        product_views=lasts // 40,
        add_to_carts=i % 3,
        purchases=int(i % 6 == 5),
        revenue_minor=chance.randrange(10_000, 900_000) if i % 6 == 5 else 0,
        device_type=("mobile", "desktop", "tablet")[i % 3],
        geo_region=REGIONS[i % 8],
        primary_category=CATEGORIES[i % 8],
    )


def an_alert(name: str, at: int | None = None, rule: str = "RAPID_ORDERS", user: str | None = None):
    """An alert of three orders, by default of this moment."""
    risk, why = RULES[rule]
    return alert(
        alert_id=f"a-{name}",
        user_id=user or f"user-of-{name}",
        order_id=f"o-{name}-3",
        alert_type=rule,
        risk_score=risk,
        description=why,
        amount_minor=123_450 + 990_000 * (risk > 0.9),
        event_time=at or time.time_ns() // 1_000_000,
        related_events=[f"o-{name}-{k}" for k in (1, 2, 3)],
    )
