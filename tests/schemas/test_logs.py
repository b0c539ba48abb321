"""What programs write to standard error: text, or a JSON object a line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.logs import FORMATS
from tests.live import ROOT

PROGRAM = """
import logging, sys
from schemas.logs import Logs
Logs(sys.argv[1], "fraud-detector").set_up(logging.INFO)
log = logging.getLogger("shop.orders")
log.info("%d orders\\nof %s", 3, "Gül")
log.debug("not this one")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("cannot divide")
log.warning("file %s", "\\udcff")
"""


def lines(*command: str) -> list[str]:
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=120)
    return ended.stderr.splitlines()


def test_a_line_of_json_has_every_field_and_stays_one_line() -> None:
    first, second, third = map(json.loads, lines("-c", PROGRAM, "json"))
    assert abs((datetime.fromisoformat(first.pop("time")) - datetime.now(UTC)).total_seconds()) < 60
    assert first == {"level": "INFO", "logger": "shop.orders", "job": "fraud-detector", "message": "3 orders\nof Gül"}
    assert (second["level"], second["message"]) == ("ERROR", "cannot divide")
    assert second["exception"].startswith("Traceback (most recent call last):\n")
    assert second["exception"].endswith("ZeroDivisionError: division by zero")
    assert third["message"] == "file ?"


def test_text_says_the_same_to_people() -> None:
    found = lines("-c", PROGRAM, "text")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO shop.orders: 3 orders", found[0])
    assert "ZeroDivisionError: division by zero" in found


@pytest.mark.parametrize(
    "program",
    [
        ["beam_pipelines.fraud"],
        ["beam_pipelines.worker_pool"],
        ["cdc.workload"],
        ["serving"],
        ["simulator"],
    ],
)
def test_every_command_that_runs_long_lets_one_choose(program: list[str]) -> None:
    """The flags of jobs are those of one declaration: one of them stands for all."""
    shown = subprocess.run(
        [sys.executable, "-m", *program, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    ).stdout
    assert f"--log_format {{{','.join(FORMATS)}}}" in shown


def test_a_workers_lines_are_those_of_its_job() -> None:
    work = "from beam_pipelines.worker_pool import _work; from schemas.logs import Logs; "
    (line,) = map(
        json.loads, lines("-c", work + "_work('127.0.0.1:1', 'w-1', '/no/such', 0, Logs('json', 'archiver'))")
    )
    assert (line["level"], line["job"]) == ("CRITICAL", "archiver")
    assert "FileNotFoundError" in line["exception"]


def test_a_jobs_warnings_and_the_error_that_ends_it_are_json(tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").touch()
    flags = ["--log_format=json", f"--input={tmp_path}/*.jsonl", "--output=redis://127.0.0.1:1/0"]
    flags += [f"--dead_letters={tmp_path}", f"--late={tmp_path}"]
    found = [
        json.loads(line)
        for line in lines(
            "-c", f"from beam_pipelines import fraud\nfraud.build = lambda *_: 1 / 0\nfraud.main({flags})"
        )
    ]
    assert {line["job"] for line in found} == {"fraud-detector"}
    assert "redis://127.0.0.1:1/0 does not answer yet" in found[0]["message"]
    assert found[-1]["level"] == "CRITICAL"
    assert "ZeroDivisionError" in found[-1]["exception"]
