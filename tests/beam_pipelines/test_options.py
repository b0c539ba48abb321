"""A wrong command line stops a job before it starts, with one line that names the flag and the reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines import archive, options
from beam_pipelines.fraud import JOB, main
from beam_pipelines.options import Settings
from beam_pipelines.sinks import BigQueryUrl, Folder, KafkaUrl, RedisUrl
from schemas import codec
from schemas.flags import UsageError
from schemas.mapping import shipped
from tests.build import order
from transforms.archive import CLICKSTREAM, ORDERS_TABLE

FILES = ("--input=orders.jsonl", "--output=out")


def settings(*argv: str) -> Settings:
    return options.parse(JOB, argv)[1]


def refusal(*argv: str) -> str:
    with pytest.raises(UsageError) as refused:
        options.parse(JOB, argv)
    return str(refused.value)


# Defaults


def test_without_flags_a_job_reads_and_writes_the_local_stack() -> None:
    found = settings()
    assert found.input == KafkaUrl("127.0.0.1:29092", "transactions.orders")
    assert found.outputs == (RedisUrl("redis://127.0.0.1:6379/0"), KafkaUrl("127.0.0.1:29092", "alerts.fraud"))
    assert found.dead_letters == KafkaUrl("127.0.0.1:29092", "dlq.fraud-detector")
    assert found.late == KafkaUrl("127.0.0.1:29092", "late.fraud-detector")
    assert found.registry == "http://127.0.0.1:8081/apis/ccompat/v7"
    assert (found.ledger, found.until_end, found.kafka_read, found.bounded) == (None, False, "blocks", False)
    assert (found.out_of_orderness_ms, found.allowed_lateness_ms) == (10_000, 600_000)
    assert found.max_ahead_ms == 3_600_000
    assert (found.readers, found.discover_every_s, found.idle_after_ms, found.on_lost) == (
        None,
        20.0,
        10_000,
        "continue",
    )


def test_another_kafka_takes_its_outputs_along() -> None:
    found = settings("--input=kafka://k1:9092,k2:9092/shop.orders", "--until=latest")
    assert found.input == KafkaUrl("k1:9092,k2:9092", "shop.orders")
    assert found.outputs[1] == KafkaUrl("k1:9092,k2:9092", "alerts.fraud")
    assert found.dead_letters == KafkaUrl("k1:9092,k2:9092", "dlq.fraud-detector")
    assert found.until_end
    assert found.bounded


def test_files_have_an_end_and_everything_lands_in_the_output_folder() -> None:
    found = settings("--input=orders/*.avro", "--output=out")
    assert found.input == Folder("orders/*.avro")
    assert found.outputs == (Folder("out"),)
    assert found.dead_letters == found.late == Folder("out")
    assert found.bounded


def test_several_outputs_and_sides_of_their_own_can_be_given() -> None:
    found = settings(
        "--output=redis://r:6380/3",
        "--output=gs://bucket/alerts/",
        "--output=kafka://k:9092/alerts",
        "--output=bigquery://shop-1.live_2",
        "--dead_letters=kafka://k:9092/dlq",
        "--late=late",
    )
    assert found.outputs == (
        RedisUrl("redis://r:6380/3"),
        Folder("gs://bucket/alerts/"),
        KafkaUrl("k:9092", "alerts"),
        BigQueryUrl("shop-1", "live_2"),
    )
    assert (found.dead_letters, found.late) == (KafkaUrl("k:9092", "dlq"), Folder("late"))


def test_one_value_may_name_several_outputs_and_a_path_may_hold_spaces() -> None:
    urls = (
        RedisUrl("secret://shop-1/redis-url?ca=redis-ca"),
        KafkaUrl("k1:9092,k2:9092", "alerts"),
        Folder("gs://b/x y"),
    )
    one = settings("--output=secret://shop-1/redis-url?ca=redis-ca kafka://k1:9092,k2:9092/alerts  gs://b/x y")
    assert one.outputs == urls
    assert settings("--output=my alerts redis://r:6380/3").outputs == (
        Folder("my alerts"),
        RedisUrl("redis://r:6380/3"),
    )
    of_archive = ("--input=kafka://k:9092/orders kafka://k:9092/clicks", "--output=archive")
    found = options.parse(archive.JOB, of_archive)[1]
    assert found.inputs == (KafkaUrl("k:9092", "orders"), KafkaUrl("k:9092", "clicks"))


def test_sides_go_beside_a_kafka_output_when_there_is_no_folder() -> None:
    assert settings("--input=x.avro", "--output=kafka://k:9092/alerts").late == KafkaUrl(
        "k:9092", "late.fraud-detector"
    )


def test_numbers_durations_and_names_are_read() -> None:
    found = settings(
        *("--registry=https://r.example/api/", "--ledger=ledger.json", "--readers=4", "--state_shards=64"),
        *("--out_of_orderness=500ms", "--allowed_lateness=0s", "--kafka_read=native"),
    )
    assert (found.registry, found.ledger) == ("https://r.example/api", "ledger.json")
    assert (found.readers, found.state_shards, found.kafka_read) == (4, 64, "native")
    assert (found.out_of_orderness_ms, found.allowed_lateness_ms) == (500, 0)


@pytest.mark.parametrize(
    ("path", "table", "parts"),
    [
        ("out", "late", ("out", "late")),
        ("out/", "late", ("out/", "late")),
        ("out/late", "late", ("out", "late")),
        ("out/late/", "late", ("out", "late")),
        ("late", "late", (".", "late")),
        ("/late", "late", ("/", "late")),
        ("gs://bucket/x/late", "late", ("gs://bucket/x", "late")),
    ],
)
def test_a_folder_gets_a_subfolder_per_table_unless_it_is_named_for_it(path: str, table: str, parts: Any) -> None:
    assert Folder(path).subfolder(table) == parts


# Wrong values


WRONG = [
    ("--input=s3://bucket/x", "--input: s3://bucket/x: cannot read s3://; use kafka://, gs:// or a path"),
    ("--input=redis://h:1/0", "--input: redis://h:1/0: cannot read redis://"),
    ("--input=", "--input: is empty"),
    ("--input=kafka://h:9092", "--input: kafka://h:9092 names no topic; write kafka://host:port/topic"),
    ("--input=kafka://h:9092/a/b", "--input: kafka://h:9092/a/b names no topic"),
    ("--input=kafka://h/topic", "--input: kafka://h/topic: 'h' is not host:port"),
    ("--input=kafka://h:9092,/topic", "--input: kafka://h:9092,/topic: '' is not host:port"),
    ("--input=kafka://h:port/topic", "--input: kafka://h:port/topic: 'h:port' is not host:port"),
    ("--input=kafka:///topic", "--input: kafka:///topic: '' is not host:port"),
    (
        "--output=ftp://h/x",
        "--output: ftp://h/x: cannot write to ftp://; use redis://, bigquery://, kafka://, gs:// or ",
    ),
    ("--output=redis://", "--output: redis:// is not redis://host:port/db"),
    ("--output=redis://h:6379/first", "--output: redis://h:6379/first is not redis://host:port/db"),
    ("--output=redis://h:port/0", "--output: redis://h:port/0 is not redis://host:port/db"),
    ("--output=redis://h:99999/0", "--output: redis://h:99999/0 is not redis://host:port/db"),
    (
        "--output=secret://shop-1",
        "--output: secret://shop-1 is not secret://project/secret or secret://project/secret?ca=",
    ),
    ("--output=secret://shop-1/a/b", "--output: secret://shop-1/a/b is not secret://project/secret or "),
    ("--output=secret://shop-1/a?key=b", "--output: secret://… is not secret://project/secret or "),
    ("--output=kafka://h:9092", "--output: kafka://h:9092 names no topic"),
    ("--output=bigquery://shop-1", "--output: bigquery://shop-1 is not bigquery://project.dataset"),
    ("--output=bigquery://Shop.d", "--output: bigquery://Shop.d is not bigquery://project.dataset"),
    ("--output=bigquery://shop-1.d-1", "--output: bigquery://shop-1.d-1 is not bigquery://project.dataset"),
    ("--output=bigquery://shop-1.d.t", "--output: bigquery://shop-1.d.t is not bigquery://project.dataset"),
    ("--input=bigquery://shop-1.d", "--input: bigquery://shop-1.d: cannot read bigquery://"),
    ("--late=bigquery://shop-1.d", "--late: bigquery://shop-1.d is neither a Kafka topic nor a folder"),
    ("--output=", "--output: is empty"),
    ("--dead_letters=redis://h:6379/0", "--dead_letters: redis://h:6379/0 is neither a Kafka topic nor a folder"),
    ("--dead_letters=kafka://h/x", "--dead_letters: kafka://h/x: 'h' is not host:port"),
    ("--late=redis://h:6379/0", "--late: redis://h:6379/0 is neither a Kafka topic nor a folder"),
    ("--late=kafka://h:1", "--late: kafka://h:1 names no topic"),
    ("--registry=127.0.0.1:8081", "--registry: 127.0.0.1:8081 is not an http:// or https:// URL"),
    ("--registry=http://h:port/x", "--registry: http://h:port/x is not an http:// or https:// URL"),
    ("--ledger=", "--ledger: '' is not the name of a file"),
    ("--ledger=.", "--ledger: '.' is not the name of a file"),
    ("--ledger=new/", "--ledger: 'new/' is not the name of a file"),
    ("--out_of_orderness=10", "--out_of_orderness: '10' is not a duration"),
    ("--out_of_orderness=-5s", "--out_of_orderness: '-5s' is not a duration"),
    ("--allowed_lateness=soon", "--allowed_lateness: 'soon' is not a duration"),
    ("--allowed_lateness=99999999d", "--allowed_lateness: '99999999d' is longer than 100 years"),
    ("--max_ahead=0s", "--max_ahead: 0s is not a positive duration"),
    ("--readers=0", "--readers: 0 is not a whole number of at least 1"),
    ("--discover_every=0s", "--discover_every: 0s is not a positive duration"),
    ("--idle_after=0s", "--idle_after: 0s is not a positive duration"),
    ("--group_prefix=shop-a", "--group_prefix: 'shop-a' is not such as shop-a."),
    ("--on_lost=ignore", "--on_lost: invalid choice: 'ignore'"),
    ("--readers=two", "--readers: two is not a whole number of at least 1"),
    ("--state_shards=-1", "--state_shards: -1 is not a whole number of at least 1"),
    ("--state_shards=1.5", "--state_shards: 1.5 is not a whole number of at least 1"),
    ("--until=tomorrow", "--until: invalid choice: 'tomorrow'"),
    ("--kafka_read=fast", "--kafka_read: invalid choice: 'fast'"),
    ("--allowed_lateness", "--allowed_lateness: expected one argument"),
    ("--runner=FlonkRunner", "--runner: FlonkRunner is not one of "),
    ("--parallelism=many", "--parallelism: invalid int value: 'many'"),
]


@pytest.mark.parametrize(("flag", "why"), WRONG, ids=[flag for flag, _ in WRONG])
def test_a_wrong_value_is_refused_in_one_line_that_names_the_flag_and_the_reason(flag: str, why: str) -> None:
    line = refusal(flag)
    assert line.startswith(why)
    assert "\n" not in line


def test_files_need_an_output_and_have_an_end_by_themselves() -> None:
    assert refusal("--input=x.avro") == "--output: is needed when --input is files"
    assert refusal(*FILES, "--until=latest") == "--until: is for Kafka input; files have an end by themselves"


def test_refused_records_must_be_able_to_go_somewhere() -> None:
    only_redis = ("--input=x.avro", "--output=redis://h:6379/0")
    assert refusal(*only_redis).startswith("--dead_letters: is needed when there is neither a folder nor Kafka")
    assert refusal(*only_redis, "--dead_letters=dlq").startswith("--late: is needed")
    assert settings(*only_redis, "--dead_letters=dlq", "--late=late").late == Folder("late")


# Flags of Beam's


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--parralelism=3", "--parralelism: no such flag; did you mean --parallelism?"),
        ("--allowed_latenes=1m", "--allowed_latenes: no such flag; did you mean --allowed_lateness?"),
        ("--ruls=x", "--ruls: no such flag; did you mean --rules?"),
        ("--checkpoint_interval=5", "--checkpoint_interval: no such flag; did you mean --checkpointing_interval?"),
        ("--zzzz", "--zzzz: no such flag; see --help"),
        ("--inp=x", "--inp: no such flag; did you mean --input?"),
        ("alerts", "alerts: is not a flag; see --help"),
        ("-runner=FlinkRunner", "-runner=FlinkRunner: is not a flag; see --help"),
    ],
)
def test_what_is_no_flag_is_refused_and_a_near_one_is_suggested(flag: str, why: str) -> None:
    assert refusal(*FILES, flag) == why


@pytest.mark.parametrize("name", sorted(options.FLINK_ONLY))
def test_every_option_that_only_flinks_own_side_knows_is_passed_on(name: str) -> None:
    for words in ([f"--{name}=1"], [f"--{name}", "1"], [f"--no_{name}"]):
        _, _, rest = options.parse(JOB, [*FILES, *words])
        assert rest == words


def test_options_of_beam_are_passed_on_in_both_spellings() -> None:
    words = ["--runner", "FlinkRunner", "--parallelism=4", "--streaming", "--experiments=a", "--experiments", "b"]
    assert options.parse(JOB, [*FILES, *words])[2] == words


@pytest.mark.parametrize("runner", ["DirectRunner", "FlinkRunner", "PrismRunner", "DataflowRunner", "flinkrunner"])
def test_runners_are_known_by_name_and_others_by_path(runner: str) -> None:
    for name in (runner, f"some.package.{runner}"):
        assert options.parse(JOB, [*FILES, f"--runner={name}"])[2] == [f"--runner={name}"]


def test_help_explains_every_flag_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options.parse(JOB, ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    flags = vars(options.parse(JOB, FILES)[0])
    assert {"input", "output", "dead_letters", "late", "registry", "ledger", "until", "rules"} <= flags.keys()
    assert {line.split()[0] for line in text.splitlines() if line.startswith("  --")} == {f"--{f}" for f in flags}
    assert "python -m beam_pipelines.fraud" in text
    assert "%(default)s" not in text


# The whole job


def orders_file(folder: Path) -> Path:
    path = folder / "orders.jsonl"
    path.write_bytes(codec.to_json(order()) + b"\n")
    return path


def stopped(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    line, end = capsys.readouterr().err.split("\n")
    assert end == ""
    return line


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("{", "not YAML"),
        ("version: 3", "version: 3 is not known; this release reads versions 1 and 2"),
        ("{version: 1, currency: TRY, rules: {A: {kind: burst, orders: 0, risk_score: 1}}}", "A: orders 0 is not"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_a_rules_file_that_cannot_be_used_stops_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, why: str
) -> None:
    rules, out = tmp_path / "rules.yaml", tmp_path / "out"
    if content is not None:
        rules.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = stopped(capsys, f"--input={orders_file(tmp_path)}", f"--output={out}", f"--rules={rules}")
    assert line.startswith("beam_pipelines.fraud: --rules: ")
    assert why in line
    assert str(rules) in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing-*.avro", "no file matches"),
        ("nothing.jsonl", "no file matches"),
        ("orders.csv", "is neither .avro nor"),
    ],
)
def test_input_that_is_not_there_or_of_another_kind_stops_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    (tmp_path / "orders.csv").touch()
    out = tmp_path / "out"
    line = stopped(capsys, f"--input={tmp_path / name}", f"--output={out}")
    assert line.startswith("beam_pipelines.fraud: --input: ")
    assert why in line
    assert not out.exists()


def run(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beam_pipelines.fraud", *argv]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--runer=FlinkRunner", "--runer: no such flag; did you mean --runner?"),
        ("--rules=rules.yaml", "--rules: [Errno 2] No such file or directory: 'rules.yaml'"),
        ("--until=latest", "--until: is for Kafka input; files have an end by themselves"),
    ],
)
def test_a_wrong_flag_stops_the_job_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, why: str
) -> None:
    line = stopped(capsys, f"--input={orders_file(tmp_path)}", f"--output={tmp_path / 'out'}", flag)
    assert line.startswith(f"beam_pipelines.fraud: {why}")
    assert not (tmp_path / "out").exists()


def test_a_process_that_is_started_wrongly_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    ended = run(f"--input={orders_file(tmp_path)}", "--output=out", "--allowed_lateness=soon", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("beam_pipelines.fraud: --allowed_lateness: 'soon' is not a duration")
    assert not (tmp_path / "out").exists()


# Flags that differ from topic to topic

_TWO = ("--input=kafka://k:1/shop.orders", "--input=kafka://k:1/shop.clicks", "--output=out")


def archive_settings(*argv: str) -> Settings:
    return options.parse(archive.JOB, [*_TWO, *argv])[1]


def test_a_format_is_for_all_topics_or_for_those_that_it_names() -> None:
    found = archive_settings("--format=json,shop.clicks=confluent").format
    assert (found.of("shop.orders"), found.of("shop.clicks"), found.of(None)) == ("json", "confluent", "json")
    assert archive_settings().format.of("shop.orders") == "auto"
    only = archive_settings("--format=shop.clicks=json")
    assert archive._messages(only, ORDERS_TABLE, "shop.orders") == ("auto", None)
    assert archive._messages(only, CLICKSTREAM, "shop.clicks") == ("json", None)


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--format=avro", "--format: 'avro' is not one of auto, json"),
        ("--format=shop.clicks=", "--format: '' is not one of auto, json"),
        ("--format=json,shop.payments=json", "--format: names the topic shop.payments, which is not an --input"),
        ("--format=shop.orders=json,shop.orders=auto", "--format: names the topic shop.orders twice"),
        ("--mapping=shop.payments=shopify", "--mapping: names the topic shop.payments, which is not an --input"),
        ("--mapping=shop.orders=shopify,shop.clicks=nowhere.yaml", "--mapping: "),
    ],
)
def test_a_format_or_mapping_of_a_topic_that_is_not_read_is_refused(flag: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        archive_settings(flag)
    assert str(refused.value).startswith(why)


def test_a_mapping_that_makes_no_such_records_stops_the_archive_before_it_starts() -> None:
    """It has orders only, and would have failed in the worker, again and again."""
    with pytest.raises(UsageError, match=r"^--mapping: shop\.clicks: it has no section clicks"):
        archive._messages(archive_settings("--mapping=shopify"), CLICKSTREAM, "shop.clicks")
    only = archive_settings("--mapping=shop.orders=shopify")
    assert archive._messages(only, ORDERS_TABLE, "shop.orders") == ("auto", shipped("shopify"))
    assert archive._messages(only, CLICKSTREAM, "shop.clicks") == ("auto", None)
