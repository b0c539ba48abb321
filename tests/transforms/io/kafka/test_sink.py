"""The sink on a real broker: what it refuses of one record, whatever the reason, costs that record and nothing else."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from stack import Stack
from tests.build import HOUR, T0
from tests.live import eventually, messages_of
from tests.transforms.test_letter_envelopes import letter
from transforms.errors import BadRecord
from transforms.io.kafka import KafkaRecord, WriteLettersToKafka, WriteToKafka, sink
from transforms.letter_envelopes import Cut, cut_of, read_envelope

pytestmark = pytest.mark.stack

noise = random.Random(1).randbytes
MakeTopic = Callable[..., str]


@pytest.fixture
def topic(live_stack: Stack) -> MakeTopic:
    """Makes a topic with settings of its own."""

    def make(**settings: str) -> str:
        name = f"sink.{uuid.uuid4().hex[:8]}"
        admin = AdminClient({"bootstrap.servers": live_stack.address("kafka")})
        config = {"retention.ms": "-1"} | settings
        admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(30)
        return name

    return make


def started(write: WriteToKafka | WriteLettersToKafka) -> Any:
    fn = write._fn
    fn.setup()
    return fn


def bundle(fn: Any, *elements: Any) -> list[BadRecord]:
    fn.start_bundle()
    for element in elements:
        fn.process(element)
    return [windowed.value for windowed in fn.finish_bundle()]


def letters_in(stack: Stack, topic: str) -> list[tuple[BadRecord, Cut | None]]:
    found = [m.value() for m in messages_of(stack.address("kafka"), topic)]
    return sorted(((read_envelope(v), cut_of(v)) for v in found), key=lambda of: of[0].offset)


def test_letters_of_any_size_are_written_to_a_topic_of_default_size(live_stack: Stack, topic: MakeTopic) -> None:
    name = topic()
    letters = [
        letter(b"small", offset=1),
        letter(noise(900_000), offset=2),
        letter(b"compresses well " * 550_000, offset=3),
        letter(noise(8_800_000), offset=4, key=noise(200_000), headers=[("h", noise(300_000))]),
        letter(b"small", offset=5),
    ]
    fn = started(WriteLettersToKafka(live_stack.address("kafka"), name))
    assert fn.limit == 1_048_588, "the topic's own, as the broker has it"
    assert bundle(fn, *letters) == []
    found = letters_in(live_stack, name)
    assert [record.offset for record, _ in found] == [1, 2, 3, 4, 5]
    assert [record for record, cut in found if cut is None] == [letters[0], letters[2], letters[4]]
    for record, cut in found:
        original = letters[record.offset - 1].payload
        assert original
        assert cut is None or (cut.fits(original) and record.payload == original[:4_096])


def test_a_limit_that_was_lowered_meanwhile_makes_letters_shorter(live_stack: Stack, topic: MakeTopic) -> None:
    name = topic()
    fn = started(WriteLettersToKafka(live_stack.address("kafka"), name))
    entry = ConfigEntry("max.message.bytes", "40000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": live_stack.address("kafka")})
    admin.incremental_alter_configs([change])[change].result(30)
    assert bundle(fn, *(letter(noise(60_000), offset=i) for i in range(5)), letter(b"small", offset=9)) == []
    found = letters_in(live_stack, name)
    assert [(record.offset, cut is None) for record, cut in found] == [*((i, False) for i in range(5)), (9, True)]


def test_where_the_limit_may_not_be_read_each_letter_shows_whether_it_fits(
    live_stack: Stack, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    monkeypatch.setattr(sink, "message_limit", lambda _servers, _topic: None)  # as without the right to ask
    fn = started(WriteLettersToKafka(live_stack.address("kafka"), name))
    letters = [*(letter(noise(600_000), offset=i) for i in range(4)), letter(noise(900_000), offset=4)]
    assert bundle(fn, *letters) == []
    found = letters_in(live_stack, name)
    assert [(record.offset, cut is None) for record, cut in found] == [*((i, True) for i in range(4)), (4, False)]


def records(stack: Stack, topic: str) -> Any:
    return started(WriteToKafka(stack.address("kafka"), topic, lambda: lambda record: record, "fraud-detector"))


REFUSED = {
    "larger than the topic takes": ({}, KafkaRecord(b"k", noise(1_200_000), T0), "MSG_SIZE_TOO_LARGE"),
    "larger than a segment": (
        {"segment.bytes": "1048576", "max.message.bytes": "4000000"},
        KafkaRecord(b"k", noise(1_500_000), T0),
        "RECORD_LIST_TOO_LARGE",
    ),
    "without a key, where the topic is compacted": (
        {"cleanup.policy": "compact"},
        KafkaRecord(None, b"no key", T0),
        "INVALID_RECORD",
    ),
}


@pytest.mark.parametrize(("settings", "bad", "error"), REFUSED.values(), ids=REFUSED)
def test_a_record_that_the_broker_refuses_is_a_dead_letter_and_the_others_are_written(
    settings: dict[str, str], bad: KafkaRecord, error: str, live_stack: Stack, topic: MakeTopic
) -> None:
    name = topic(**settings)
    good = [KafkaRecord(b"k", b"good", T0 + i) for i in range(6)]
    [refused] = bundle(records(live_stack, name), *good[:3], bad, *good[3:])
    assert (refused.stage, refused.error_class, refused.job) == ("kafka", error, "fraud-detector")
    assert (refused.payload, refused.key, refused.timestamp) == (bad.value, bad.key, refused.timestamp)
    assert refused.topic == f"kafka://{live_stack.address('kafka')}/{name}"
    written = messages_of(live_stack.address("kafka"), name)
    assert sorted(m.timestamp()[1] for m in written) == [T0 + i for i in range(6)]


@pytest.mark.parametrize(
    ("settings", "at_ms"),
    [({}, 4_000_000_000_000), ({"message.timestamp.before.max.ms": str(HOUR)}, T0)],
    ids=["ahead of the broker's clock", "longer ago than the topic takes"],
)
def test_a_record_whose_time_the_broker_refuses_is_written_with_the_time_of_now(
    settings: dict[str, str], at_ms: int, live_stack: Stack, topic: MakeTopic
) -> None:
    name = topic(**settings)
    now = KafkaRecord(b"k", b"good", sink.time.time_ns() // 1_000_000)
    assert bundle(records(live_stack, name), now, KafkaRecord(b"k", b"at another time", at_ms), now) == []
    written = messages_of(live_stack.address("kafka"), name)
    assert sorted(m.value() for m in written) == [b"at another time", b"good", b"good"]
    assert all(abs(m.timestamp()[1] - now.timestamp_ms) < HOUR for m in written)


def test_what_is_not_about_the_record_is_tried_again_and_no_dead_letter(
    live_stack: Stack, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    fn = records(live_stack, name)
    assert bundle(fn, KafkaRecord(b"k", b"good", T0)) == []
    admin = AdminClient({"bootstrap.servers": live_stack.address("kafka")})
    admin.delete_topics([name])[name].result(30)
    eventually(lambda: name not in admin.list_topics(timeout=60).topics, "the topic to go")
    fn.start_bundle()
    fn.process(KafkaRecord(b"k", b"good", T0))
    monkeypatch.setattr(sink, "_FLUSH_S", 3)
    with pytest.raises(RuntimeError, match=f"1 records were not written to {name}"):
        list(fn.finish_bundle())
    with pytest.raises(RuntimeError, match=f"topic {name} at"):
        records(live_stack, name)
