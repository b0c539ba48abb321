"""How far the jobs are: from what their readers commit, as a real Kafka keeps it."""

import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from schemas.progress import commit_metadata, watermark_ms_of
from serving import Config, create_app
from serving.progress import Committed, Kafka, Progress, ProgressOfJobs, progress
from stack import Stack
from tests import live

NOW_MS = 1_800_000_000_000


@given(st.integers(-(1 << 62), 1 << 62))
def test_a_watermark_is_read_back_from_a_commit(watermark_ms):
    assert watermark_ms_of(commit_metadata(watermark_ms)) == watermark_ms


@given(st.none() | st.text() | st.text("0123456789-", max_size=30).map("watermark_ms=".__add__))
def test_what_others_commit_is_no_watermark_or_a_number(metadata):
    assert isinstance(watermark_ms_of(metadata), int | None)
    assert watermark_ms_of("") is None
    assert watermark_ms_of("12") is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.none() | st.integers(0, NOW_MS)), min_size=1))
def test_lag_is_summed_and_the_slowest_watermark_counts(partitions):
    found = progress([Committed(*each) for each in partitions], NOW_MS)
    # A topic that was made anew is shorter than what was committed.
    assert found.lag == sum(end - offset for offset, end, _ in partitions if end > offset)
    delays = [(NOW_MS - watermark) / 1000 for _, _, watermark in partitions if watermark is not None]
    assert found.watermark_delay_s == max(delays, default=None)


def wait_for(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_nobody_is_asked_before_somebody_wants_to_know_and_what_is_old_is_not_told():
    answers = [{"fraud-detector": [Committed(3, 5, None)], "archiver": []}, OSError("away")]
    asked, may_ask = [], threading.Semaphore(0)

    def ask():
        may_ask.acquire()
        asked.append(1)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, OSError):
            raise answer
        return answer

    jobs = ProgressOfJobs(ask, every_s=0.001, timeout_s=0.001)
    assert not asked
    assert jobs.now() == {}
    may_ask.release()
    wait_for(lambda: asked, "it is asked")
    may_ask.release(100)  # from now on it is away
    wait_for(lambda: len(asked) > 50 and jobs.now() == {}, "old answers are forgotten")
    assert asked


def test_the_answer_is_told_while_it_is_new():
    jobs = ProgressOfJobs(lambda: {"fraud-detector": [Committed(3, 5, None)], "archiver": []})
    wait_for(lambda: jobs.now(), "there is an answer")
    assert jobs.now() == {"fraud-detector": Progress(2, None)}


def test_a_broker_that_is_away_leaves_the_rest_of_the_api_alone(valkey):
    app = create_app(Config(redis_url=valkey.redis_url, kafka="127.0.0.1:1"))
    assert app.test_client().get("/api/v1/health").json["data"]["progress"] == {}


def has_groups(consumer, topic):
    try:
        return bool(consumer.committed([TopicPartition(topic, 0)], 10))
    except KafkaException:
        return False


@pytest.mark.stack
def test_what_readers_commit_is_told_by_health_and_metrics(tmp_path, valkey):
    with Stack(tmp_path, ["kafka"], ports="free") as stack:
        servers, topic = stack.address("kafka"), "some.orders"
        messages = [live.Message(b"x", time_ms=1, partition=i % 2) for i in range(10)]
        live.fill_topic(stack, topic, messages)
        consumer = Consumer({"bootstrap.servers": servers, "group.id": "shop-a.fraud-detector"})
        live.eventually(lambda: has_groups(consumer, topic), "a new broker has groups, after a while")
        assert Kafka(servers, ["fraud-detector", "archiver"], "shop-a.")() == {}
        now_ms = time.time_ns() // 1_000_000
        consumer.commit(
            offsets=[
                TopicPartition(topic, 0, 2, commit_metadata(now_ms - 60_000)),
                TopicPartition(topic, 1, 5, commit_metadata(now_ms)),
            ],
            asynchronous=False,
        )
        consumer.close()
        client = create_app(Config(redis_url=valkey.redis_url, kafka=servers, group_prefix="shop-a.")).test_client()
        wait_for(lambda: client.get("/api/v1/health").json["data"]["progress"], "Kafka has told")
        (job, found), *others = client.get("/api/v1/health").json["data"]["progress"].items()
        assert (job, found["lag"], others) == ("fraud-detector", 3, [])
        assert 60 <= found["watermark_delay_s"] < 200
        scrape = client.get("/metrics").text
        assert 'streamforge_pipeline_lag_records{job="fraud-detector"} 3.0' in scrape
        # What nobody reads waits, too: since its first record. An empty partition waits for nothing.
        live.fill_topic(stack, topic, [live.Message(b"x", time_ms=now_ms - 900_000 + i, partition=3) for i in range(7)])
        asked = Kafka(servers, ["fraud-detector"], "shop-a.")()["fraud-detector"]
        assert Kafka(servers, ["fraud-detector"])() == {}, "another shop's"
        assert sorted(asked)[:2] == [Committed(0, 0, None), Committed(0, 7, now_ms - 900_000)]
        behind = progress(asked, now_ms)
        assert (behind.lag, behind.watermark_delay_s) == (10, 900)
        assert 'streamforge_pipeline_watermark_delay_seconds{job="fraud-detector"} 6' in scrape
