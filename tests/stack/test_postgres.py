"""PostgreSQL as the stack starts it: as root too, killed, and stopped while somebody is connected."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stack import Stack
from stack.postgres import Postgres

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data with a space")


@pytest.fixture(scope="module")
def stack(data: Path) -> Iterator[Stack]:
    with Stack(data, ["postgres"], ports="free") as stack:
        yield stack


def connect(stack: Stack, data: Path) -> psycopg.Connection[Any]:
    password = (data / "postgres" / "password").read_text()
    return psycopg.connect(
        f"postgresql://postgres@{stack.address('postgres')}/shop", password=password, autocommit=True
    )


def one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def test_it_has_logical_decoding_and_the_shops_database(stack: Stack, data: Path) -> None:
    with connect(stack, data) as connection:
        assert one(connection, "SHOW wal_level") == "logical"
        assert one(connection, "SELECT 1 FROM pg_create_logical_replication_slot('tried', 'pgoutput')") == 1
        connection.execute("SELECT pg_drop_replication_slot('tried')")
        # Text as the shop writes it, and sorted alike on every machine.
        assert one(connection, "SELECT lower('ÇAYDANLIK')") == "çaydanlik"
        assert one(connection, "SHOW server_encoding") == "UTF8"
        assert one(connection, "SHOW listen_addresses") == "127.0.0.1"


def test_a_password_is_needed_and_only_its_owner_can_read_it(stack: Stack, data: Path) -> None:
    assert (data / "postgres" / "password").stat().st_mode & 0o077 == 0
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@{stack.address('postgres')}/shop", password="guess")


def test_killed_it_comes_back_with_what_was_committed(stack: Stack, data: Path) -> None:
    with connect(stack, data) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        stack.kill("postgres")
    stack.start("postgres")
    with connect(stack, data) as connection:
        assert one(connection, "SELECT sum(n) FROM kept") == 500500


def test_it_stops_in_good_order_while_somebody_is_connected(stack: Stack, data: Path) -> None:
    with connect(stack, data) as connection:
        one(connection, "SELECT 1")
        # As another process would, which knows only the folder.
        assert Stack(data, ()).stop("postgres") == ["postgres"]
    assert "database system is shut down" in stack.log("postgres").read_text()
    stack.start("postgres")
    assert "database system was shut down" in stack.log("postgres").read_text()  # and needs no recovery


def test_a_first_start_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("17\n")
    with Stack(tmp_path, ["postgres"], ports="free") as stack, connect(stack, tmp_path) as connection:
        assert one(connection, "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="for root only")
def test_of_root_it_has_only_the_right_to_reach_its_files(stack: Stack) -> None:
    status = Path(f"/proc/{stack.pid('postgres')}/status").read_text()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert set(fields["Uid"]) == {str(pwd.getpwnam("nobody").pw_uid)}
    assert int(fields["CapEff"][0], 16) == 1 << 1  # CAP_DAC_OVERRIDE


def test_another_user_than_root_runs_it_as_it_is(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command = Postgres().command(stack._place("postgres"))
    assert command[0].endswith("bin/postgres")
