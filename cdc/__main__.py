"""python -m cdc: prepares the shop's database for capture, and manages its connector and replication slots.

Long, as each command's flags stand beside what it does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from cdc import connect, database, limits, server, slots
from cdc.database import Database
from cdc.errors import CdcError, WrongInput
from connections.kafka import Brokers, kafka_file
from schemas.addresses import shown
from schemas.flags import Parser, typed

_ABOUT = """Captures the changes of the shop's PostgreSQL into Kafka (cdc.public.<table>), with Debezium.

  python -m stack up kafka postgres connect
  python -m cdc setup --sample_data       tables, publication, the role that Debezium uses
  python -m cdc register                  the connector: made, or brought up to date, and seen to run
  python -m cdc.workload                  some traffic

Passwords come from files or PGPASSWORD, never from the command line. Defaults are those of the local stack."""

_POSITION_S = 15.0
_STATUS = "exit status: 0 done; 1 failed, with the reason in one line; 2 wrong input"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except WrongInput as error:
        parser.stop(error)
    except CdcError as error:
        print(f"cdc: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cdc: interrupted", file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = Parser(prog="cdc", description=_ABOUT, epilog=_STATUS)
    commands = parser.add_subparsers(
        required=True,
        metavar="COMMAND",
    )

    def command(name: str, run: object, about: str, *flags: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about, epilog=_STATUS)
        sub.set_defaults(run=run)
        if "database" in flags:
            sub.add_argument("--database", default=database.LOCAL, metavar="URL", help=f"default: {database.LOCAL}")
        if "secrets" in flags:
            secrets = Path(".stack/connect/secrets")
            about = f"folder with the passwords that `cdc setup` wrote (default: {secrets})"
            sub.add_argument("--secrets", type=Path, default=secrets, metavar="DIR", help=about)
        if "connect" in flags:
            sub.add_argument("--connect", default=connect.LOCAL, metavar="URL", help=f"default: {connect.LOCAL}")
            sub.add_argument("--name", default=connect.NAME, help=f"the connector's name (default: {connect.NAME})")
        return sub

    setup = command(
        "setup",
        _setup,
        "create the tables, the publication and Debezium's role, where they are missing",
        "database",
        "secrets",
    )
    setup.add_argument(
        "--password_file", type=Path, metavar="FILE", help="password of the URL's user (default: PGPASSWORD)"
    )
    setup.add_argument("--sample_data", action="store_true", help="also insert missing sample products and customers")
    register = command(
        "register",
        _register,
        "create or update the connector and wait until it runs; URL and DIR are as Connect sees them",
        "database",
        "secrets",
        "connect",
    )
    register.add_argument("--timeout", type=_positive, default=60.0, metavar="SECONDS", help="default: 60")
    register.add_argument(
        "--kafka",
        type=_servers,
        metavar="HOST:PORT",
        help="check this broker for topics that accept less than the connector may send (default: no check)",
    )
    register.add_argument(
        "--kafka_config", type=typed(kafka_file), metavar="FILE", help="how to connect there (docs/security.md)"
    )
    register.add_argument("--dry_run", action="store_true", help="only print the connector's configuration")
    command(
        "status",
        _status,
        "show the state of the connector and its task, and tables without REPLICA IDENTITY FULL; exits with 0 if both "
        "run, else 1",
        "database",
        "secrets",
        "connect",
    )
    snapshot = command(
        "snapshot",
        _snapshot,
        "read tables again while changes continue (incremental snapshot), or everything with --initial",
        "database",
        "secrets",
        "connect",
    )
    snapshot.add_argument("tables", nargs="*", type=_table, metavar="TABLE", help=", ".join(database.TABLES))
    snapshot.add_argument(
        "--initial",
        action="store_true",
        help="drop the slot and start over, as after a lost slot; rows deleted meanwhile are never reported",
    )
    snapshot.add_argument(
        "--timeout", type=_positive, default=60.0, metavar="SECONDS", help="timeout of --initial (default: 60)"
    )
    slot = command(
        "slots",
        _slots,
        "show the lag of each replication slot; exits with 1 if one is abandoned, lost or too far behind, else 0",
        "database",
        "secrets",
    )
    slot.add_argument(
        "--max_lag_mb", type=_positive, default=1024.0, metavar="MB", help="largest acceptable lag (default: 1024)"
    )
    slot.add_argument("--prometheus", action="store_true", help="print metrics in Prometheus's text format")
    slot.add_argument("--output", type=Path, metavar="FILE", help="write the metrics to this file, atomically")
    slot.add_argument("--port", type=_port, metavar="PORT", help="serve the metrics on this port until stopped")
    slot.add_argument("--host", default="127.0.0.1", help="address for --port; 0.0.0.0 for all (default: 127.0.0.1)")
    return parser


def _setup(options: argparse.Namespace) -> int:
    where = Database.parse(options.database)
    with where.connect(database.owner_password(options.password_file, options.database)) as connection:
        database.set_up(connection, options.secrets)
        if options.sample_data:
            _fill(connection)
    print(f"{where.name} is ready for capture by the role {database.ROLE}")
    return 0


def _fill(connection: psycopg.Connection) -> None:
    try:
        from cdc import sample  # of the simulator's catalogue, which the image for capture does not have
    except ModuleNotFoundError as e:
        raise WrongInput(f"--sample_data: {e}: the simulator's image has it") from e
    sample.fill(connection)


def _register(options: argparse.Namespace) -> int:
    where = Database.parse(options.database)
    if options.dry_run:
        print(json.dumps(connect.connector(where, options.secrets, _epoch(None, {})), indent=2))
        return 0
    started = time.monotonic()
    connector = connect.Connect(options.connect, options.name)
    registered = connector.registered(options.timeout)
    with _looked_at(options) as connection:
        found = server.look(connection) if connection else None
        config = connect.connector(where, options.secrets, _epoch(found, registered))
        if connection and server.is_another(registered, config):
            slot = config["slot.name"]
            connector.begin_anew(options.timeout, lambda: slots.drop_slot(connection, slot), config)
            done = "begun anew with a snapshot, as this is another server than before"
        else:
            done = connector.register(config, options.timeout)
        positioned = connector.wait_for_position(_POSITION_S)
        if positioned and connection:
            _wait_for_reader(connection, connector)
        print(f"connector {options.name}: {done}, running after {time.monotonic() - started:.1f} s")
        _tell_of_snapshot(positioned)
        _tell_of_identity(connection)
    for line in limits.too_small(Brokers(options.kafka, options.kafka_config)) if options.kafka else ():
        print(line)
    return 0


def _epoch(found: server.Server | None, registered: dict[str, str]) -> str:
    return server.epoch_of(found, registered, time.time_ns() // 1_000_000)


@contextlib.contextmanager
def _looked_at(options: argparse.Namespace) -> Iterator[psycopg.Connection[object] | None]:
    """None, and a line that says so, where the database is reached only by Connect."""
    try:
        connection = _connected(options)
    except CdcError as error:
        print(f"not looked at from here, the database's server and REPLICA IDENTITY: {error}")
        yield None
        return
    with connection:
        yield connection


def _wait_for_reader(connection: psycopg.Connection[object], connector: connect.Connect) -> None:
    """Connect says RUNNING before a task has said a word to the database."""
    name, deadline = connect.settings()["slot.name"], time.monotonic() + _POSITION_S
    while not any(slot.name == name and slot.active for slot in slots.read_slots(connection)):
        if (state := connector.state()).failed:
            raise CdcError(f"the connector failed: {state.reason}")
        if time.monotonic() > deadline:
            raise CdcError(f"Connect calls it {state.connector}, but nobody reads the slot {name}")
        time.sleep(0.1)


def _tell_of_snapshot(positioned: bool) -> None:
    """A small snapshot is over in a moment; whoever writes to the database only then loses nothing."""
    if not positioned:
        print(
            "its first snapshot goes on; if Connect is killed before it is over, take another with "
            "`python -m cdc snapshot --initial` into empty topics: rows deleted meanwhile are told by no record"
        )


def _tell_of_identity(connection: psycopg.Connection[object] | None) -> None:
    for table, full in (server.identities(connection) if connection else {}).items():
        if not full:
            print(f"{table} lacks REPLICA IDENTITY FULL, so changes of it may be refused: {server.FULL.format(table)}")


def _status(options: argparse.Namespace) -> int:
    Database.parse(options.database)
    connector = connect.Connect(options.connect, options.name)
    state = connector.state()
    tasks = ", ".join(state.tasks) or "none"
    print(f"connector {options.name}: {state.connector}; tasks: {tasks}{f'; {state.reason}' if state.reason else ''}")
    with _looked_at(options) as connection:
        _tell_of_identity(connection)
        if connection:
            _, _, registered = connector.registered(_POSITION_S).get(server.EPOCH, "").partition("/")
            if registered and registered != str(found := server.look(connection)):
                print(f"registered for server {registered}, but this is {found}: `python -m cdc register`")
    return 0 if state.running else 1


def _snapshot(options: argparse.Namespace) -> int:
    if bool(options.tables) == options.initial:
        raise WrongInput("name tables, or give --initial, which takes all of them")
    with _connected(options) as connection:
        if options.initial:
            slot = connect.settings()["slot.name"]
            connector = connect.Connect(options.connect, options.name)
            connector.begin_anew(options.timeout, lambda: slots.drop_slot(connection, slot))
            print("began anew with a snapshot of all tables")
            _tell_of_snapshot(connector.wait_for_position(_POSITION_S))
            return 0
        tables = [f"public.{table}" for table in options.tables]
        database.signal(connection, "execute-snapshot", {"type": "incremental", "data-collections": tables})
    print(f"asked for a snapshot of {', '.join(tables)}")
    return 0


def _slots(options: argparse.Namespace) -> int:
    if options.port:
        return _serve_slots(options)
    found = _read_slots(options)
    if options.output:
        new = options.output.with_name(f"{options.output.name}.new")
        try:
            new.write_text(_exposition(options))
            new.replace(options.output)
        except OSError as error:
            raise WrongInput(f"{options.output}: {(error.strerror or str(error)).lower()}") from None
    max_lag_bytes = int(options.max_lag_mb * 2**20)
    print(_exposition(options) if options.prometheus else slots.table(found, max_lag_bytes))
    return 1 if any(slot.trouble(max_lag_bytes) for slot in found) else 0


def _read_slots(options: argparse.Namespace) -> list[slots.Slot]:
    with _connected(options, database.MONITOR) as connection:
        return slots.read_slots(connection)


def _exposition(options: argparse.Namespace) -> str:
    with _connected(options, database.MONITOR) as connection:
        return slots.exposition(slots.read_slots(connection), server.identities(connection))


def _serve_slots(options: argparse.Namespace) -> int:
    if options.output or options.prometheus:
        raise WrongInput("--port serves the metrics; --output and --prometheus write them once")
    database.secret(options.secrets, database.MONITOR)  # at once, and not in each scrape's error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how containers are stopped
    try:
        # A connection per scrape: one that is kept would have to notice that the database was restarted.
        slots.serve(options.host, options.port, lambda: _exposition(options))
    except OSError as error:
        raise WrongInput(f"cannot serve on {options.host}:{options.port}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        pass
    return 0


def _connected(options: argparse.Namespace, role: str = database.ROLE) -> psycopg.Connection[object]:
    return Database.parse(options.database).connect(database.secret(options.secrets, role), user=role)


def _table(text: str) -> str:
    if text not in database.TABLES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(database.TABLES)}")
    return text


def _servers(text: str) -> str:
    if re.fullmatch(r"[\w.-]+:\d{1,5}(,[\w.-]+:\d{1,5})*", text, re.ASCII):
        return text
    raise argparse.ArgumentTypeError(f"{shown(text)!r} is not host:port[,host:port]")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
