"""Every command and flag that takes a URL, given malformed ones with a secret in every position: nothing shows it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

import pytest

from schemas.addresses import Address, StoreUrl
from tests.schemas.test_addresses import MALFORMED, SECRET

JOBS = ("fraud", "sessions", "revenue", "cdc", "archive")
FLAGS = ("--input", "--output", "--dead_letters", "--late", "--registry", "--expansion_service")
FILES = ("--input=nowhere.jsonl", "--output=out")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Module, and arguments with {} where the URL goes."""
    for job in JOBS:
        for flag in FLAGS:
            rest = [each for each in FILES if not each.startswith(flag)]
            yield f"beam_pipelines.{job}", [*rest, f"{flag}={{}}"]
        yield f"beam_pipelines.{job}", [*FILES, "{}"]
    for verb in ("inspect", "replay", "export"):
        yield "beam_pipelines.dead_letters", [verb, "{}"]
        yield "beam_pipelines.dead_letters", [verb, "nowhere", "--registry={}"]
    yield "beam_pipelines.tables", ["create", "{}"]
    yield "beam_pipelines.tables", ["{}"]
    for flag in ("--redis", "--kafka", "--cors_origin"):
        yield "serving.__main__", [f"{flag}={{}}"]
    yield "serving.__main__", ["{}"]
    for flag in ("--output", "--registry"):
        yield "simulator.__main__", [f"{flag}={{}}", "--events=1"]
    yield "simulator.__main__", ["{}"]
    for verb in ("setup", "register", "snapshot", "slots"):
        yield "cdc.__main__", [verb, "--database={}", "--secrets=nowhere"]
    for verb in ("register", "status"):
        yield "cdc.__main__", [verb, "--connect={}"]
    yield "cdc.__main__", ["status", "{}"]
    yield "cdc.workload", ["--database={}"]


@pytest.mark.parametrize(
    ("module", "arguments"), commands(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_no_command_shows_the_secret_of_a_malformed_url(
    module: str,
    arguments: list[str],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    main = importlib.import_module(module).main
    for shape in MALFORMED:
        with contextlib.suppress(SystemExit):
            ended = main([argument.format(shape.format(SECRET)) for argument in arguments])
            assert ended != 0, shape
        said = "".join(capfd.readouterr()) + caplog.text
        assert said, shape
        assert SECRET not in said, shape
        assert "Traceback" not in said, shape


def test_what_clients_say_of_an_address_is_hidden() -> None:
    url = Address(f"http://user:{SECRET}%21@h:8081/x?token={SECRET}")
    for words in (
        f"Invalid URL {url.reveal()}",
        f"HTTPConnectionPool: Max retries exceeded with url: /x?token={SECRET}",
        f"401 for url http://user:{SECRET}!@h:8081/x",
        f'connection to "postgresql://user:{SECRET}@h/d" failed',
    ):
        assert SECRET not in url.hide(words)
    store = StoreUrl(f"redis://h?password={SECRET}")
    assert SECRET not in store.hide(f"Error connecting with password='{SECRET}'")
