"""schemathesis reads the OpenAPI document of the running server and calls it with what that allows, and what not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.api_keys import sha256
from tests.build import MINUTE, T0, alert, minute, session
from tests.server import running
from tests.store import order, write

pytestmark = pytest.mark.stack

KEY = "sf_test"
HOOKS = Path(__file__).parent / "schemathesis_hooks.py"


@pytest.fixture
def filled(valkey, db):
    """Several pages of every list, by the jobs' own writers."""
    users = [f"user-{i}" for i in range(5)]
    start = T0 // MINUTE * MINUTE
    for rows in (
        [alert(alert_id=f"a-{i}", user_id=users[i % 5], event_time=T0 + i // 3) for i in range(60)],
        [session(users[i % 5], T0 + i * MINUTE, deleted=i % 7 == 0) for i in range(30)],
        [minute(start + i * MINUTE) for i in range(20)],
        [minute(start + i * MINUTE, "region", "Izmir") for i in range(20)],
        [order(f"o-{i}", T0 + i, 100, users[i % 5]) for i in range(20)],
    ):
        write(valkey.redis_url, rows)
    return valkey


def findings(server, folder, *flags):
    """Runs it; what it has found, empty when that is nothing."""
    told = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", "run", f"http://127.0.0.1:{server.port}/openapi.json"),
            *("--exclude-path=/api/v1/stream", "--request-timeout=10", "--continue-on-failure", "--no-color", *flags),
        ],
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HOOKS.parent)},
        capture_output=True,
        text=True,
    )
    return "" if told.returncode == 0 and " passed" in told.stdout else told.stdout[-20_000:] + told.stderr


def test_nothing_that_the_description_allows_or_forbids_is_answered_otherwise(filled, tmp_path):
    """All checks, on every route but the stream, which has no end."""
    with running(filled.redis_url, tmp_path=tmp_path) as server:
        assert findings(server, tmp_path, "--checks=all", "--max-examples=15") == ""
        assert server.metric("streamforge_http_requests_total", status="200") > 100
        assert server.metric("streamforge_http_requests_total", status="400") > 100


def test_decisions_are_answered_as_described(filled, tmp_path):
    """The body has no schema, as what is wrong with it is said in the words of a dead letter: so not all checks."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    with running(filled.redis_url, "--decisions", "--mapping=shopify", tmp_path=tmp_path) as server:
        only = ("--include-path-regex=^/api/v1/decisions", "--phases=fuzzing", "--max-examples=40")
        assert findings(server, tmp_path, f"--checks={checks}", *only) == ""
        assert server.metric("streamforge_http_requests_total", endpoint="/api/v1/decisions", method="POST") > 20
        assert server.metric("streamforge_http_requests_total", endpoint="/api/v1/decisions", status="500") == 0


def test_no_key_but_a_right_one_opens_a_guarded_server(filled, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMFORGE_API_KEYS", f"tester:{sha256(KEY)}")
    with running(filled.redis_url, tmp_path=tmp_path) as server:
        flags = ("--phases=fuzzing", "--mode=positive", "--max-examples=3", f"--header=X-API-Key: {KEY}")
        assert findings(server, tmp_path, "--checks=ignored_auth,not_a_server_error", *flags) == ""
        assert server.metric("streamforge_http_requests_total", status="200") > 10
        assert server.metric("streamforge_http_requests_total", status="401") > 10
