"""Every command and flag that takes a URL, given malformed ones with a secret in every position: nothing shows it."""

from __future__ import annotations

import base64
import contextlib
import importlib
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from cdc.connect import Connect
from cdc.errors import CdcError
from schemas.addresses import Address, StoreUrl
from tests.schemas.test_addresses import MALFORMED, SECRET
from transforms.io.registry import Registry

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
    for flag in ("--rules", "--against", "--labels", "--input"):
        rest = [each for each in ("--rules=current", "--input=nowhere.jsonl") if not each.startswith(flag)]
        yield "beam_pipelines.backtest", [*rest, f"{flag}={{}}"]
    yield "beam_pipelines.backtest", ["{}"]
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
    yield "cdc.__main__", ["register", "--kafka={}"]
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
    url = Address(f"http://user:{SECRET}%21@h:8081/x")
    for words in (
        f"Invalid URL {url.reveal()}",
        f"401 for url http://user:{SECRET}!@h:8081/x",
        f'connection to "postgresql://user:{SECRET}@h/d" failed',
    ):
        assert SECRET not in url.hide(words)
    store = StoreUrl(f"redis://h?password={SECRET}")
    assert SECRET not in store.hide(f"Error connecting with password='{SECRET}'")


class Asked(BaseHTTPRequestHandler):
    """Lets nobody in, and remembers who asked."""

    users: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.users.append(base64.b64decode((self.headers["Authorization"] or "").removeprefix("Basic ")).decode())
        self.send_response(401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def locked() -> Iterator[str]:
    """Address of a server that lets nobody in, with a password."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://user:{SECRET}%2F@127.0.0.1:{server.server_port}/x"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_password_in_a_url_reaches_its_server_and_no_log_of_a_client(
    locked: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    Asked.users.clear()
    with pytest.raises(OSError, match="401") as refused:
        Registry(locked).check()
    with pytest.raises(CdcError, match="401") as unseen:
        Connect(locked).state()
    assert set(Asked.users) == {f"user:{SECRET}/"}
    assert len(caplog.records) > 1
    assert SECRET not in caplog.text + str(refused.value) + str(unseen.value)
