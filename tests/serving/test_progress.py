"""How far the jobs are: from what their readers commit, as a real Kafka keeps it."""

import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

import serving.progress
from connections.kafka import Brokers
from schemas.progress import Commit, commit_metadata, commit_of
from serving import Config, create_app
from serving.progress import Committed, Kafka, Progress, ProgressOfJobs, Topic, progress
from stack import Stack
from tests import live

NOW_MS = 1_800_000_000_000


COMMITS = st.builds(Commit, st.none() | st.integers(-(1 << 62), 1 << 62), st.integers(0, 1 << 62), st.integers(0, 999))


@given(COMMITS)
def test_what_a_commit_says_is_read_back(commit):
    assert commit_of(commit_metadata(commit)) == commit


def test_a_commit_of_an_older_release_has_a_watermark_or_nothing():
    assert commit_of("watermark_ms=-12") == Commit(-12)
    assert commit_of("") == commit_of(None) == Commit()


@given(st.text() | st.text("0123456789-", max_size=30).map("watermark_ms=".__add__))
def test_what_others_commit_says_nothing_or_a_watermark(metadata):
    commit = commit_of(metadata)
    assert isinstance(commit.watermark_ms, int | None)
    assert commit[1:] == (0, 0)
    assert commit_of("12") == Commit()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.none() | st.integers(0, NOW_MS)), min_size=1))
def test_lag_is_summed_and_the_slowest_watermark_counts(partitions):
    found = progress([Committed("orders", 0, end, offset, at_ms) for offset, end, at_ms in partitions], NOW_MS)
    # A topic that was made anew is shorter than what was committed.
    shorter = sum(end < offset for offset, end, _ in partitions)
    assert found.topics == {"orders": Topic(len(partitions), sum(end == 0 for _, end, _ in partitions), shorter)}
    assert found.lag == sum(end - offset for offset, end, _ in partitions if end > offset)
    delays = [(NOW_MS - watermark) / 1000 for _, _, watermark in partitions if watermark is not None]
    assert found.watermark_delay_s == max(delays, default=None)


def wait_for(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_nobody_is_asked_before_somebody_wants_to_know_and_what_is_old_is_not_told():
    answers = [{"fraud-detector": [Committed("orders", 0, 5, 3, None)], "archiver": []}, OSError("away")]
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
    jobs = ProgressOfJobs(lambda: {"fraud-detector": [Committed("orders", 0, 5, 3, None)], "archiver": []})
    wait_for(lambda: jobs.now(), "there is an answer")
    assert jobs.now() == {"fraud-detector": Progress(2, None, {"orders": Topic(1, 0, 0)})}


def test_settings_that_cannot_be_used_are_an_outage_and_not_the_end(tmp_path):
    """As while a certificate is being replaced."""
    settings = tmp_path / "kafka.properties"
    settings.write_text(f"security.protocol=SSL\nssl.ca.location={tmp_path / 'gone.pem'}\n")
    ask = Kafka(Brokers("127.0.0.1:1", str(settings)), ["fraud-detector"])
    for _ in range(2):
        with pytest.raises(OSError, match=r"gone\.pem|ssl"):
            ask()


def test_clients_that_fail_for_long_are_replaced(monkeypatch):
    now_s, connected = [0.0], []
    monkeypatch.setattr(serving.progress.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(serving.progress, "_partitions", lambda admin: connected.append(admin) or fail())
    ask = Kafka("127.0.0.1:1", ["fraud-detector"])

    def fail():
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    for at in (0, 10, 20, 21, 22, 40, 43):
        now_s[0] = float(at)
        with pytest.raises(OSError, match="Timed out"):
            ask()
    first, *_, last = connected
    assert [admin is first for admin in connected] == [True, True, True, True, False, False, False]
    assert connected[4] is last, "their time begins anew"


def test_a_broker_that_is_away_leaves_the_rest_of_the_api_alone(valkey):
    app = create_app(Config(redis_url=valkey.redis_url, kafka="127.0.0.1:1"))
    assert app.test_client().get("/api/v1/health").json["data"]["progress"] == {}


class Broker:
    """librdkafka's, in this process. Topics have four partitions; it knows no timestamps."""

    def __init__(self):
        self._owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
        [self.servers] = [f"{each.host}:{each.port}" for each in self._owner.list_topics(timeout=60).brokers.values()]
        self._settings = {"bootstrap.servers": self.servers, "log_level": 0}
        self._producer = Producer(self._settings)

    def send(self, topic, records):
        for _ in range(records):
            self._producer.produce(topic, b"x", partition=0)
        assert self._producer.flush(10) == 0

    def commit(self, job, topic, offsets, metadata):
        consumer = Consumer({**self._settings, "group.id": job})
        places = [TopicPartition(topic, p, offset, metadata) for p, offset in offsets.items()]
        consumer.commit(offsets=places, asynchronous=False)
        consumer.close()

    def progress(self, job):
        found = Kafka(self.servers, [job])()
        return progress(found[job], NOW_MS)


@pytest.fixture
def broker():
    return Broker()


def at(committed_ms, topics=1, watermark_ms=NOW_MS - 1_000):
    return commit_metadata(Commit(watermark_ms, committed_ms, topics))


def test_a_topic_that_a_job_no_longer_reads_is_not_counted(broker):
    broker.send("a", 5)
    broker.commit("archiver", "a", {0: 5, 1: 0}, at(1_000, watermark_ms=NOW_MS - 900_000))
    assert broker.progress("archiver").topics == {"a": Topic(4, 3, 0)}
    broker.send("b", 7)
    broker.commit("archiver", "b", {0: 4}, at(2_000))
    broker.send("a", 100)
    assert broker.progress("archiver") == Progress(3, 1.0, {"b": Topic(4, 3, 0)})
    broker.commit("archiver", "a", {0: 9}, at(3_000))
    assert broker.progress("archiver").lag == 96, "it reads the first again"


def test_a_topic_whose_reader_stands_is_counted_as_long_as_the_job_reads_as_many(broker):
    for topic in ("orders", "clicks", "former"):
        broker.send(topic, 10)
    broker.commit("archiver", "former", {0: 1}, at(1_000))
    broker.commit("archiver", "orders", {0: 2}, at(2_000, topics=2))
    broker.commit("archiver", "clicks", {0: 9}, at(900_000, topics=2))
    found = broker.progress("archiver")
    assert (found.lag, found.topics.keys()) == (9, {"orders", "clicks"})


def test_commits_of_an_older_release_count_until_there_is_a_newer_one(broker):
    for topic in ("a", "b"):
        broker.send(topic, 10)
        broker.commit("archiver", topic, {0: 4}, f"watermark_ms={NOW_MS - 5_000}")
    assert broker.progress("archiver")[:2] == (12, 5.0)
    broker.commit("archiver", "b", {0: 8}, at(1_000))
    assert broker.progress("archiver")[:2] == (2, 1.0)


def test_partitions_without_records_and_those_that_were_cut_are_told_by_health_and_metrics(broker, valkey):
    broker.send("orders", 5)
    broker.commit("fraud-detector", "orders", {0: 9, 1: 0}, at(1_000))
    client = create_app(Config(redis_url=valkey.redis_url, kafka=broker.servers)).test_client()
    wait_for(lambda: client.get("/api/v1/health").json["data"]["progress"], "Kafka has told")
    found = client.get("/api/v1/health").json["data"]["progress"]["fraud-detector"]
    assert found["lag"] == 0
    assert found["topics"] == {"orders": {"partitions": 4, "empty_partitions": 3, "truncated_partitions": 1}}
    scrape = client.get("/metrics").text
    labels = '{job="fraud-detector",topic="orders"}'
    assert f"streamforge_pipeline_partitions{labels} 4.0" in scrape
    assert f"streamforge_pipeline_empty_partitions{labels} 3.0" in scrape
    assert f"streamforge_pipeline_truncated_partitions{labels} 1.0" in scrape


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
                TopicPartition(topic, 0, 2, at(now_ms, watermark_ms=now_ms - 60_000)),
                TopicPartition(topic, 1, 5, at(now_ms, watermark_ms=now_ms)),
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
        untouched = [Committed(topic, 0, 0, 0, None), Committed(topic, 0, 7, 0, now_ms - 900_000)]
        assert sorted(asked, key=lambda each: each.offset)[:2] == untouched
        behind = progress(asked, now_ms)
        assert behind == Progress(10, 900, {topic: Topic(4, 1, 0)})
        assert 'streamforge_pipeline_watermark_delay_seconds{job="fraud-detector"} 6' in scrape
