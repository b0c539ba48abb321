"""`python -m beam_pipelines.mapping`: what it prints for a file, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beam_pipelines import mapping, report
from schemas.trial import Trial
from tests.foreign import stream


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    lines = [json.dumps(foreign.message) for foreign in stream("segment", 100)]
    path.write_text("\n".join([*lines, "{not JSON"]) + "\n")
    return path


def test_try_says_what_a_mapping_makes_of_a_file_as_text_json_and_page(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "try.html"
    assert mapping.main(["try", "--mapping=segment", f"--input={events}", f"--page={page}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("orders: 101 messages, ")
    assert "never filled:" in out
    assert "LOCATION_ANOMALY never alerts" in out
    assert mapping.main(["try", "--mapping=segment", f"--input={events}", "--json"]) == 0
    orders, clicks = map(json.loads, capsys.readouterr().out.splitlines())
    assert orders["messages"] == clicks["messages"] == 101
    assert orders["recognised"] + orders["ignored"] + orders["refused"] == 101
    assert "<h2>orders</h2>" in page.read_text()


def test_a_page_shows_what_a_message_says_and_obeys_none_of_it() -> None:
    evil = "<script>alert(1)</script>"
    page = mapping.page_of([Trial("orders", 1, 1, source={"a": evil}, record={"b": evil}, warnings=[evil])])
    assert evil not in page
    assert page.count("&lt;script&gt;") == 3


def test_nothing_recognised_is_status_1(events: Path) -> None:
    assert mapping.main(["try", "--mapping=shopify", f"--input={events}"]) == 1


def test_suggest_prints_a_mapping(events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mapping.main(["suggest", f"--input={events}"]) == 0
    assert "version: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["try", "--mapping=segment", "--input=nosuch.jsonl"], "--input: no file matches nosuch.jsonl"),
        (["try", "--mapping=nosuch.yaml", "--input={events}"], "--mapping: "),
        (["try", "--mapping={events}", "--input={events}"], "--mapping: "),
        (["suggest"], "--input"),
        (["try", "--mapping=segment", "--input={empty}"], "--input: {empty} holds no messages"),
        (["suggest", "--input={empty}"], "--input: {empty} holds no messages"),
        (["suggest", "--input={arrays}"], "--input: none of 2 messages is an object with fields; the first: an array"),
        (["try", "--mapping=segment", "--input={events}", "--page={events}/p.html"], "--page: "),
        (["try", "--mapping=segment", "--input=kafka://127.0.0.1:1/orders"], "--input: topic orders at 127.0.0.1:1: "),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    flags: list[str], why: str, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"events": events, "empty": tmp_path / "empty.jsonl", "arrays": tmp_path / "arrays.jsonl"}
    places["empty"].touch()
    places["arrays"].write_text("[{}]\nnot JSON\n")
    with pytest.raises(SystemExit) as end:
        mapping.main([flag.format(**places) for flag in flags])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert why.format(**places) in err
    assert err.count("\n") == 1


def test_a_run_that_ends_says_its_ledger_and_the_commonest_reasons(tmp_path: Path) -> None:
    (tmp_path / report.LEDGER).write_text('{"in":1200,"dead_letters":20}')
    reasons = [{"error_class": "E", "count": 20 - i, "example": f"why {i}"} for i in range(12)]
    (tmp_path / report.REASONS).write_text(json.dumps(reasons))
    first, why, *rest = report.lines(str(tmp_path), "topic t")
    assert first == "ledger: in 1,200, dead letters 20"
    assert why == "why records were refused (they are in topic t):"
    assert rest[0] == "  20 x E: why 0"
    assert rest[-1] == "  19 x 2 other reasons"


def test_workers_on_other_machines_are_not_taken_for_a_run_without_records(tmp_path: Path) -> None:
    assert list(report.lines(str(tmp_path), "t")) == [
        "the run has ended; its workers are on other machines: --ledger keeps what they counted"
    ]
