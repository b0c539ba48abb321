"""Topics of letters, looked at before a job starts."""

from __future__ import annotations

import logging
import uuid

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from beam_pipelines import connect, options
from beam_pipelines.fraud import JOB
from schemas.flags import UsageError
from stack import Stack
from tests.live import eventually

pytestmark = pytest.mark.stack


def check(stack: Stack, letters: dict[str, str], records: dict[str, str] | None = None) -> str:
    """Looks at a job whose topics have these settings; returns the topic of letters."""
    servers, name = stack.address("kafka"), uuid.uuid4().hex[:8]
    configs = {f"orders.{name}": records or {}, f"dlq.{name}": letters, f"late.{name}": {}}
    new = [NewTopic(topic, 1, 1, config=config) for topic, config in configs.items()]
    admin = AdminClient({"bootstrap.servers": servers})  # named: its futures fail when it is gone
    for made in admin.create_topics(new).values():
        made.result(30)
    eventually(lambda: admin.list_topics(timeout=60).topics.keys() >= configs.keys(), "the topics")
    orders, dlq, late = (f"kafka://{servers}/{topic}" for topic in configs)
    argv = [f"--input={orders}", f"--dead_letters={dlq}", f"--late={late}", f"--registry={stack.registry_url}"]
    _, settings, _ = options.parse(JOB, [*argv, f"--output={orders}"])
    connect.check(settings)
    return f"dlq.{name}"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"cleanup.policy": "compact"}, "is compacted: of the letters of a key only the newest would stay"),
        ({"max.message.bytes": "20000"}, r"takes 20,000 bytes \(max.message.bytes\); letters need 32,768"),
    ],
)
def test_a_topic_that_cannot_hold_letters_is_refused_before_the_start(
    live_stack: Stack, settings: dict[str, str], why: str
) -> None:
    with pytest.raises(UsageError, match=rf"--dead_letters: topic dlq\.\w+ at .* {why}"):
        check(live_stack, settings)


def test_a_topic_that_takes_less_than_records_may_have_is_told_and_one_that_takes_enough_is_not(
    live_stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        topic = check(live_stack, {"max.message.bytes": "2000000"}, {"max.message.bytes": "3000000"})
    [told] = [r.getMessage() for r in caplog.records if f"topic {topic} " in r.getMessage()]
    assert "takes 2,000,000 bytes" in told
    assert "takes 3,000,000" in told
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        topic = check(live_stack, {"max.message.bytes": "4194304"}, {"max.message.bytes": "3000000"})
    assert not [r for r in caplog.records if f"topic {topic} " in r.getMessage()]
