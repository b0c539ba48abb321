"""python -m tests.screenshots: docs/dashboard-light.png and -dark.png, of a demo that runs or of its own.

Its own has an hour of traffic behind it, takes some minutes and about 4 GB of memory, and is ended again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests import browser
from tests.live import eventually

_DOCS = Path(__file__).parent.parent / "docs"
_URL = "http://127.0.0.1:8090"
_CAUGHT_UP_S = 30.0  # how old the newest event may be when traffic is live
_STOP_S = 240


def main() -> int:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.screenshots", description=about.partition(": ")[2], epilog=rest
    )
    parser.parse_args()
    executable = browser.executable()
    if executable is None:
        print(f"screenshots: {browser.HOW_TO_GET_IT}", file=sys.stderr)
        return 2
    with contextlib.nullcontext() if _answer("/info") else _demo(), browser.chromium(executable) as chromium:
        for theme in ("light", "dark"):
            page = chromium.new_page(
                color_scheme=theme, viewport={"width": 1440, "height": 1210}, device_scale_factor=1.5
            )
            page.goto(_URL)
            expect(page.locator("#alerts ol > li")).not_to_have_count(0)
            expect(page.locator("#chart canvas")).to_be_visible()
            rate = page.locator("#health td").nth(1)
            expect(rate).not_to_have_text("…", timeout=20_000)  # takes two looks
            path = _DOCS / f"dashboard-{theme}.png"
            page.screenshot(path=path, animations="disabled")
            page.close()
            print(path.relative_to(_DOCS.parent))
    return 0


@contextlib.contextmanager
def _demo() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "stack.demo", "--history=1h"], start_new_session=True)

    def is_live() -> bool:
        assert process.poll() is None, "the demo ended"
        ages = (_answer("/health") or {}).get("freshness_s", {})
        return len(ages) >= 4 and max(ages.values()) < _CAUGHT_UP_S

    try:
        eventually(is_live, "the demo has caught up with its hour of traffic", 900, 1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_S)


def _answer(path: str) -> Any:
    """What the API says; None when it does not."""
    try:
        with urllib.request.urlopen(f"{_URL}/api/v1{path}", timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
