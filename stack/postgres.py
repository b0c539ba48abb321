"""PostgreSQL with logical replication, and in it the empty database `shop`."""

import contextlib
import os
import pwd
import secrets
import shlex
import shutil
import signal
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from stack.artefacts import cached, maven
from stack.console import SILENT, Console
from stack.errors import StackError
from stack.ports import HOST, answers
from stack.service import Place, Service

__all__ = ["DATABASE", "Postgres"]

DATABASE = "shop"
_OWNER = "postgres"


class Postgres(Service):
    """The superuser `postgres` has the password that lies beside the data, in the file `password`."""

    name = "postgres"
    ports: ClassVar[Mapping[str, int]] = {"postgres": 5432}
    stop_signal = signal.SIGINT  # SIGTERM would wait until the last client has gone

    def fetch(self, console: Console) -> None:
        _binaries(console)

    def prepare(self, place: Place) -> None:
        password = place.folder / "password"
        if not (place.folder / "data").exists():
            shutil.rmtree(place.folder / "data.new", ignore_errors=True)  # of a start that was killed
            password.touch(mode=0o600)
            password.write_text(secrets.token_hex(16))

    def command(self, place: Place) -> list[str]:
        binaries, data = _binaries(SILENT) / "bin", place.folder / "data"
        settings = {
            "listen_addresses": HOST,
            "port": place.ports["postgres"],
            "unix_socket_directories": "",  # a path that may be too long for one
            "wal_level": "logical",
            "max_connections": 50,
            "shared_buffers": "64MB",
            "jit": "off",
            # A slot that nobody reads keeps WAL for ever; it shall be lost before it fills a laptop's disk.
            "max_slot_wal_keep_size": "4GB",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        server = [*_as_ordinary_user(), str(binaries / "postgres"), "-D", str(data), *options]
        if data.exists():
            return server
        new = place.folder / "data.new"
        init = [
            *(*_as_ordinary_user(), str(binaries / "initdb"), "-D", str(new), "-U", _OWNER),
            *("--auth=scram-sha-256", f"--pwfile={place.folder / 'password'}"),
            *("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync"),
        ]
        steps = [shlex.join(init), shlex.join(["mv", str(new), str(data)]), f"exec {shlex.join(server)}"]
        return ["/bin/sh", "-c", " && ".join(steps)]

    def environment(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002
        return {"TZ": "UTC", "LC_ALL": "C"}

    def healthy(self, place: Place) -> bool:
        if not answers(place.ports["postgres"]):
            return False
        with contextlib.suppress(psycopg.Error), _connect(place):
            return True
        return False

    def settle(self, place: Place) -> None:
        try:
            with _connect(place) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise StackError(f"postgres: the database {DATABASE} could not be made: {error}") from error


def _binaries(console: Console) -> Path:
    (archive,) = maven("postgres", console).glob("*.txz")

    def unpack(work: Path, log: Path) -> Path:  # noqa: ARG001
        with tarfile.open(archive) as tar:
            tar.extractall(work / "dist")
        return work / "dist"

    # Named after the folder of the archive, which is named after its version.
    return cached("postgres-unpacked", archive.parent.name.removeprefix("postgres-"), unpack, console)


def _as_ordinary_user() -> list[str]:
    """What goes before a command that refuses to run as root; nothing where we are not.

    Run as `nobody`, it keeps the one right to pass by file modes: its data and its binaries lie in folders of root's.
    """
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        raise StackError("PostgreSQL does not run as root: install util-linux (for setpriv), or be another user")
    nobody = pwd.getpwnam("nobody")
    right = "+dac_override"
    return [
        *("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
        # Without the last one, access(2) does not count that right.
        *(f"--inh-caps={right}", f"--ambient-caps={right}", "--securebits=+no_setuid_fixup"),
    ]


def _connect(place: Place) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=HOST,
        port=place.ports["postgres"],
        user=_OWNER,
        password=(place.folder / "password").read_text(),
        dbname="postgres",
        connect_timeout=2,
        autocommit=True,  # CREATE DATABASE bears no transaction
    )
