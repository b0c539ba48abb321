"""Rows of any size into a store that takes no more than the least it may be set to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest
import redis

from schemas.store_keys import KEYS
from stack import Stack
from tests.build import T0, session
from transforms.io import redis as writers

pytestmark = pytest.mark.stack


@pytest.fixture
def small(db: redis.Redis) -> Iterator[redis.Redis]:
    """A store that takes values of 1 MB and calls of 8 MB."""
    limits = {"proto-max-bulk-len": 1 << 20, "client-query-buffer-limit": 8 << 20}
    before = {name: db.config_get(name)[name] for name in limits}
    for name, limit in limits.items():
        db.config_set(name, limit)
    yield db
    for name, limit in before.items():
        db.config_set(name, limit)


def test_a_row_with_a_value_too_large_for_the_store_is_a_dead_letter_and_the_others_are_written_in_calls_it_takes(
    valkey: Stack, small: redis.Redis
) -> None:
    fn = writers.WriteRowsFn(valkey.redis_url, partial(writers._sessions, "TRY"), "session-aggregator")
    rows = [session(user_id=f"u-{i}", session_id=f"u-{i}:{T0}", primary_category="x" * 100_000) for i in range(200)]
    rows[50:50] = [session(user_id="u-large", session_id=f"u-large:{T0}", primary_category="ü" * 600_000)]
    fn.setup()
    fn.start_bundle()
    refused = [letter for row in rows for letter in fn.process(row)]
    fn.finish_bundle()
    fn.teardown()
    [letter] = refused
    assert (letter.job, letter.stage, letter.error_class) == ("session-aggregator", "redis", "TooLarge")
    assert json.loads(letter.payload or b"")[0] == "u-large"
    assert "a value of 1,200," in letter.error_message
    kept = list(small.scan_iter(KEYS.user_sessions("*"), count=1_000))
    assert len(kept) == 200
