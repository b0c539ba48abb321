"""The session job from files to folders, in process: every output compared."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.sessions import Config, main
from schemas import codec
from schemas.events import ClickstreamEvent, UserSession
from simulator import __main__ as simulator
from tests.build import HOUR, MINUTE, T0, click, make_fetch
from tests.oracle_sessions import Session, expected_sessions
from transforms.sharded_rows import Decoding

EVENT_TYPES = ["PAGE_VIEW", "PRODUCT_VIEW", "SEARCH", "ADD_TO_CART", "REMOVE_FROM_CART", "CHECKOUT_START", "PURCHASE"]


def golden() -> list[ClickstreamEvent]:
    """A user for each thing that a session has, one exactly on each bound, and some that are nobody's case."""
    clicks = []

    def user(name: str, *offsets_ms: int, **fields: Any) -> None:
        for i, offset in enumerate(offsets_ms):
            each = {key: value[i] if isinstance(value, list) else value for key, value in fields.items()}
            clicks.append(click(f"{name}-{i}", user=name, at=T0 + offset, **each))

    user("gap", 0, 30 * MINUTE)
    user("gap-short", 0, 30 * MINUTE - 1)
    user("joined", 0, 58 * MINUTE, 29 * MINUTE)
    user("types", *range(7), event_type=EVENT_TYPES)
    user("bought", 0, 1, 2, event_type="PURCHASE", price_minor=[500, 500, None], quantity=[3, None, 2])
    user("looked", 0, 1, price_minor=500, quantity=3)
    user("rich", 0, 1, event_type="PURCHASE", price_minor=(1 << 63) - 1, quantity=(1 << 31) - 1)
    user("ties", 0, 1, 2, 3, device_type=["tv", "pc", "tv", "pc"], category=["ü", "z", None, None])
    user("most", 0, 1, 2, geo_region=["a", "b", "b"], category=[None, "", None])
    user("Gül:1", 0, 999, 1_000)
    for i in range(60):
        user(f"quiet-{i}", i * MINUTE, (i + 40) * MINUTE, event_type=["PAGE_VIEW", "SEARCH"])
    return clicks


BAD = [
    (b"{", "decode", "Undecodable"),
    (b'{"event_id":"c-1"}', "decode", "NotThisRecord"),
    (codec.to_json(click(user="")), "validate", "InvalidRecordError"),
    (codec.to_json(click("")), "validate", "InvalidRecordError"),
    (codec.to_json(click(quantity=0)), "validate", "InvalidRecordError"),
    (codec.to_json(click(price_minor=-1)), "validate", "InvalidRecordError"),
    (codec.to_json(click(at=4_000_000_000_000)), "validate", "InvalidRecordError"),
]


def lines_in(folder: Path) -> list[bytes]:
    return [line for part in sorted(folder.glob("*.jsonl")) for line in part.read_bytes().splitlines()]


def found_in(out: Path) -> dict[str, Session]:
    """The sessions of a folder, in which each has one row."""
    found = {}
    for line in lines_in(out / "user_sessions"):
        row = codec.from_json(line, UserSession)
        assert row.session_id not in found
        assert (row.session_id, row.pane, row.deleted) == (f"{row.user_id}:{row.session_start}", "ON_TIME", False)
        values = [getattr(row, name) for name in Session._fields[:-1]]
        found[row.session_id] = Session(*values, clicks=row.version // 4)
    return found


def run(folder: Path, pattern: str, *flags: str) -> dict[str, int]:
    ledger = folder / "ledger.json"
    main([f"--input={folder / pattern}", f"--output={folder / 'out'}", f"--ledger={ledger}", *flags])
    return dict(json.loads(ledger.read_text()))


def test_json_lines_with_bad_records_and_repeats_give_the_oracles_sessions_and_a_ledger_that_balances(
    tmp_path: Path,
) -> None:
    clicks = golden()
    lines = [codec.to_json(c) for c in clicks + clicks[:25]] + [payload for payload, _, _ in BAD]
    random.Random(1).shuffle(lines)
    (tmp_path / "a.jsonl").write_bytes(b"".join(line + b"\n" for line in lines[:90]))
    (tmp_path / "b.jsonl").write_bytes(b"".join(line + b"\n" for line in lines[90:]))
    ledger = run(tmp_path, "*.jsonl", "--runner=DirectRunner")

    expected = expected_sessions(clicks)
    assert found_in(tmp_path / "out") == expected
    assert expected[f"gap-short:{T0}"].clicks == 2
    assert expected[f"gap:{T0 + 30 * MINUTE}"].clicks == 1
    assert expected[f"joined:{T0}"].clicks == 3
    assert expected[f"bought:{T0}"].revenue_minor == 2_000

    letters = [json.loads(line) for line in lines_in(tmp_path / "out" / "dead_letters")]
    assert Counter((base64.b64decode(d["payload"]), d["stage"], d["error_class"]) for d in letters) == Counter(BAD)
    assert {letter["job"] for letter in letters} == {"session-aggregator"}
    good = len(clicks)
    assert ledger == {"in": len(lines), "good": good, "dead_letters": len(BAD), "late": 0, "duplicates": 25, "lost": 0}


def test_avro_files_and_a_gap_of_ones_own(tmp_path: Path) -> None:
    clicks = golden()
    random.Random(2).shuffle(clicks)
    for i in range(3):
        with (tmp_path / f"{i}.avro").open("wb") as out:
            codec.write_container(out, ClickstreamEvent, clicks[i::3])
    run(tmp_path, "*.avro", "--session_gap=1h")
    expected = expected_sessions(clicks, HOUR)
    assert found_in(tmp_path / "out") == expected
    assert len(expected) < len(expected_sessions(clicks))


def test_a_row_of_a_session_has_the_fields_of_the_table(tmp_path: Path) -> None:
    bought = click("c-2", user="Gül", at=T0 + 1_999, event_type="PURCHASE", price_minor=500, category="çay")
    (tmp_path / "c.jsonl").write_bytes(codec.to_json(click(user="Gül")) + b"\n" + codec.to_json(bought) + b"\n")
    run(tmp_path, "c.jsonl")
    (line,) = lines_in(tmp_path / "out" / "user_sessions")
    assert json.loads(line) == {
        "session_id": f"Gül:{T0}",
        "user_id": "Gül",
        "session_start": T0,
        "session_end": T0 + 1_999,
        "duration_seconds": 1,
        "page_views": 0,
        "product_views": 1,
        "add_to_carts": 0,
        "purchases": 1,
        "revenue_minor": 500,
        "device_type": "mobile",
        "geo_region": "Izmir",
        "primary_category": "çay",
        "pane": "ON_TIME",
        "version": 9,
        "deleted": False,
    }


def test_the_clicks_of_the_simulator_give_the_oracles_sessions(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    shop = [
        *("--rate=0", "--events=20000", "--seed=5", "--users=800"),
        *("--topics=clickstream.events", "--event_rate=2.4", "--bad_share=0.02", "--late_share=0.01"),
        *("--duplicate_share=0.02", f"--truth={truth}", f"--output={tmp_path / 'data'}", "--format=jsonl"),
    ]
    assert simulator.main(shop) == 0
    planted = json.loads(truth.read_text().splitlines()[-1])["topics"]["clickstream.events"]
    ledger = run(tmp_path, "data/*.jsonl", "--runner=DirectRunner")

    refused = Counter(
        base64.b64decode(json.loads(line)["payload"]) for line in lines_in(tmp_path / "out" / "dead_letters")
    )
    every = Counter((tmp_path / "data" / "clickstream.events.jsonl").read_bytes().splitlines())
    clicks = [codec.from_json(line, ClickstreamEvent) for line in (every - refused).elements()]
    expected = expected_sessions(clicks)
    assert len(expected) > 1_000
    assert found_in(tmp_path / "out") == expected
    assert ledger == {
        "in": planted["sent"],
        "good": planted["good"] + planted["late"],  # nothing in a file is late
        "dead_letters": planted["bad"],
        "late": 0,
        "duplicates": planted["duplicates"],
        "lost": 0,
    }


def test_a_wrong_duration_stops_the_job_and_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--session_gap", "--early_every"):
        for text in ("30", "0s"):
            with pytest.raises(SystemExit) as stopped:
                main([f"{flag}={text}"])
            assert stopped.value.code == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"beam_pipelines.sessions: {flag}: ")


def test_a_config_that_cannot_be_is_refused() -> None:
    decoding = Decoding("j", 1, 0, make_fetch)
    for field in ("gap_ms", "early_every_ms"):
        with pytest.raises(ValueError, match=field):
            Config(decoding, **{field: 0})
