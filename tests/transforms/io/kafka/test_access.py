"""What a cluster is asked before a job starts. tests/stack/test_secure.py has those who may not do everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic

from stack import Stack
from stack.ports import pick_free
from transforms.io.kafka import access, limits, patience

pytestmark = pytest.mark.stack

TOPIC = "asked.about"
LIMIT = 123_456


@pytest.fixture(scope="module")
def broker(live_stack: Stack) -> str:
    servers = live_stack.address("kafka")
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(TOPIC, 1, 1, config={"max.message.bytes": str(LIMIT)})])[TOPIC].result(30)
    return servers


@pytest.mark.parametrize("wanted", [AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS])
def test_where_nobody_is_refused_nothing_is_missing(broker: str, wanted: AclOperation) -> None:
    assert access.missing(broker, TOPIC, wanted) is None


def test_a_group_may_be_read_that_has_offsets_and_one_that_has_none(broker: str) -> None:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "asked-with"})
    consumer.commit(offsets=[TopicPartition(TOPIC, 0, 0)], asynchronous=False)
    consumer.close()
    assert access.may_commit(broker, TOPIC, "asked-with") is None
    assert access.may_commit(broker, TOPIC, "asked-without") is None


def test_a_topic_s_own_settings_come_before_the_broker_s(broker: str) -> None:
    settings = limits.topic_settings(broker, TOPIC)
    assert settings is not None
    assert settings["max.message.bytes"] == str(LIMIT)
    assert settings["cleanup.policy"] == "delete"
    assert limits.message_limit(broker, TOPIC) == LIMIT


ASKED = [
    pytest.param(lambda servers, topic: access.missing(servers, topic, AclOperation.READ), id="access"),
    pytest.param(limits.topic_settings, id="settings"),
    pytest.param(limits.message_limit, id="limit"),
]


@pytest.mark.parametrize("ask", ASKED)
def test_a_topic_that_is_not_there_is_named(
    ask: Callable[[str, str], Any], broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_UNHEARD_OF_S", 0.5)
    with pytest.raises(RuntimeError, match=f"topic nobody.knows at {broker}: "):
        ask(broker, "nobody.knows")


@pytest.mark.parametrize("ask", ASKED)
def test_a_cluster_that_does_not_answer_is_named(
    ask: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (access, limits):
        monkeypatch.setattr(module, "_ANSWER_S", 1.0)
    nowhere = f"127.0.0.1:{pick_free()}"
    with pytest.raises(RuntimeError, match=f"topic {TOPIC} at {nowhere}: "):
        ask(nowhere, TOPIC)
