"""The shop's PostgreSQL: connecting to it, and preparing it for capture."""

from __future__ import annotations

import json
import os
import secrets
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from cdc.errors import CdcError, WrongInput
from schemas.addresses import shown

__all__ = ["LOCAL", "MONITOR", "ROLE", "SECRET", "TABLES", "Database", "owner_password", "secret", "set_up", "signal"]

LOCAL = "postgresql://postgres@127.0.0.1:5432/shop"
"""The local stack's."""
_LOCAL_PASSWORD = Path(".stack/postgres/password")

TABLES = ("products", "customers", "orders", "order_items", "inventory_movements")
ROLE = "streamforge_capture"
SECRET = "capture-password"  # noqa: S105 - the file's name
MONITOR = "streamforge_monitor"
"""Sees replication slots, and may read no table."""
_SECRETS = {ROLE: SECRET, MONITOR: "monitor-password"}
_HERE = Path(__file__).parent


class Database(NamedTuple):
    """Where PostgreSQL listens; without any password."""

    url: str
    host: str
    port: int
    user: str
    name: str

    @classmethod
    def parse(cls, url: str) -> Database:
        """Raises: WrongInput, also for a URL that holds a password, which everybody on the machine could read."""
        shape = "postgresql://user@host[:port]/database"
        if not url.startswith(("postgresql://", "postgres://")):
            raise WrongInput(f"{shown(url)!r} is not {shape}")
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise WrongInput(f"not a URL of the shape {shape}") from None
        if "password" in parts:
            raise WrongInput("a password does not belong in the URL: give a file, or PGPASSWORD in the environment")
        host, port, user, name = (str(parts.get(key) or "") for key in ("host", "port", "user", "dbname"))
        port = port or "5432"
        if not (host and user and name and port.isdecimal() and "," not in host):
            raise WrongInput(f"{shown(url)!r} is not {shape}")
        return cls(url, host, int(port), user, name)

    def connect(self, password: str | None, *, user: str | None = None) -> psycopg.Connection[Any]:
        """Raises: CdcError."""
        try:
            return psycopg.connect(
                self.url, user=user or self.user, password=password, connect_timeout=10, autocommit=True
            )
        except psycopg.OperationalError as error:
            raise CdcError(f"{self.host}:{self.port}/{self.name}: {_one_line(error)}") from error


def owner_password(file: Path | None, url: str) -> str | None:
    """The file's, else PGPASSWORD's, else the local stack's; None leaves it to libpq (~/.pgpass).

    Raises: WrongInput.
    """
    if file is None and "PGPASSWORD" not in os.environ and url == LOCAL and _LOCAL_PASSWORD.exists():
        file = _LOCAL_PASSWORD
    return _read(file) if file else os.environ.get("PGPASSWORD")


def secret(folder: Path, role: str = ROLE) -> str:
    """A role's password. Raises: WrongInput."""
    return _read(folder / _SECRETS[role])


def set_up(connection: psycopg.Connection[Any], folder: Path) -> None:
    """Tables, publication and both roles, whose passwords are the folder's; where none is there, one is invented.

    Raises: CdcError, and nothing is changed then; WrongInput.
    """
    (level,) = connection.execute("SHOW wal_level").fetchone() or ("",)
    if level != "logical":
        raise CdcError(f"wal_level is {level}: set it to logical in postgresql.conf and restart PostgreSQL")
    for file in _SECRETS.values():
        if not (folder / file).exists():
            _keep(secrets.token_urlsafe(24), folder / file)
    # Hashed here: a password in a statement could end in the server's log.
    hashed = {
        role: connection.pgconn.encrypt_password(secret(folder, role).encode(), role.encode(), b"scram-sha-256")
        for role in _SECRETS
    }
    try:
        with connection.transaction():
            connection.execute((_HERE / "schema.sql").read_bytes())
            connection.execute((_HERE / "capture.sql").read_bytes())
            for role, text in hashed.items():
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(text.decode())))
    except psycopg.Error as error:
        raise CdcError(_one_line(error)) from error


def signal(connection: psycopg.Connection[Any], kind: str, data: object) -> None:
    """Asks Debezium for something, in its signal table. Raises: CdcError."""
    try:
        connection.execute(
            "INSERT INTO capture.signal (id, type, data) VALUES (%s, %s, %s)",
            [str(uuid.uuid4()), kind, json.dumps(data)],
        )
    except psycopg.Error as error:
        raise CdcError(f"{_one_line(error)} (python -m cdc setup makes what is missing)") from error


def _read(file: Path) -> str:
    try:
        text = file.read_text()
    except OSError as error:
        raise WrongInput(f"{file}: {(error.strerror or str(error)).lower()}") from None
    if not text.strip():
        raise WrongInput(f"{file} is empty")
    return text.strip()


def _keep(password: str, file: Path) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(password)  # without a line break: Connect would take it for a part of the password
    except OSError as error:
        raise WrongInput(f"{file}: {(error.strerror or str(error)).lower()}") from None


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
