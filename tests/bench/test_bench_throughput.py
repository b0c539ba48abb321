"""The table says what was measured, and does not hide who failed or found other alerts."""

import pytest

from bench import __main__ as bench
from bench.measure import Result
from bench.orders import Spec
from bench.throughput import Measurement, table

ALERTS = ("RAPID_ORDERS u-1 o-1", "RAPID_ORDERS u-2 o-2")


def measurement(name: str, seconds: float, alerts: tuple[str, ...] = ALERTS, read: float | None = 8.0) -> Measurement:
    return Measurement(name, "hot", Result(name, "hot", 1_000_000, seconds, read, 20.0, 123.4, alerts))


def rows(*measurements: Measurement) -> dict[str, list[str]]:
    lines = table(measurements, Spec()).splitlines()
    return {line.split()[0]: line.split() for line in lines[2:] if line.strip()}


def test_rates_are_of_the_whole_run_and_of_the_reading():
    assert rows(measurement("plain-python", 10.0))["plain-python"] == [
        *("plain-python", "10.0", "100,000", "-", "8.0", "125,000", "-", "20.0", "123", "2")
    ]


def test_a_run_too_short_to_tell_has_no_rate_of_reading():
    assert rows(measurement("plain-python", 2.9, read=None))["plain-python"][4:6] == ["-", "-"]


def test_ours_is_divided_by_each_peer():
    found = rows(measurement("flink-java", 5.0, read=4.0), measurement("streamforge", 10.0))
    assert found["flink-java"][3] == "0.50"
    assert found["flink-java"][6] == "0.50"
    assert found["streamforge"][3] == "1.00"


def test_other_alerts_are_told_apart():
    other = measurement("bytewax", 10.0, ("RAPID_ORDERS u-1 o-1", "RAPID_ORDERS u-3 o-3"))
    found = rows(measurement("plain-python", 10.0), measurement("flink-java", 10.0), other)
    assert found["flink-java"][-2:] == ["2", "equal"]
    assert found["bytewax"][-4:] == ["2", "DIFFER:", "-1", "+1"]


def test_a_failure_is_in_the_table_with_its_reason():
    text = table(
        [measurement("plain-python", 10.0), Measurement("bytewax", "hot", error="exit status 1: no topic")], Spec()
    )
    assert "failed" in text
    assert "bytewax: exit status 1: no topic" in text


def test_an_unknown_contestant_is_refused_before_anything_starts():
    with pytest.raises(SystemExit, match="--peers: nobody is none of"):
        bench.main(["throughput", "--peers", "plain-python,nobody"])


@pytest.mark.parametrize("flags", [["throughput", "--kafka", "x:1"], ["latency", "--redis", "redis://x:1/0"]])
def test_addresses_belong_together(flags):
    with pytest.raises(SystemExit, match="must be given together"):
        bench.main(flags)


@pytest.mark.parametrize("flag", ["--events=0", "--events=many", "--repeat=-1"])
def test_numbers_are_checked(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(["throughput", flag])
    assert stopped.value.code == 2
    assert "is not a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.stack
def test_a_small_comparison_runs_from_the_command_line(tmp_path, capsys):
    figures = tmp_path / "figures.json"
    size = ["--events=2000", "--users=200", "--rate=10", "--workload=filter"]
    flags = ["throughput", *size, "--peers=plain-python,bytewax", f"--data={tmp_path}", f"--json={figures}"]
    assert bench.main(flags) == 0
    out = capsys.readouterr().out
    assert "filter: 2,000 orders of 200 users" in out
    assert "equal" in out
    assert '"alerts_equal": true' in figures.read_text()
