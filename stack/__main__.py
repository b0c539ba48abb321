"""python -m stack: the local services from the command line."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from connections.kafka import Brokers, kafka_file
from connections.registry import registry_file
from connections.store import store_file
from schemas.access import grants
from schemas.addresses import Address, StoreUrl
from schemas.flags import Parser, typed
from schemas.jobs import JOBS
from schemas.store_keys import PREFIX, store_prefix
from stack import doctor
from stack.console import Console
from stack.errors import StackError
from stack.job_server import job_server_jar
from stack.kafka import Kafka
from stack.services import DEFAULT, FETCHED, SERVICES, service
from stack.stack import Stack
from stack.topics import PARTITIONS, TOPICS, config

_ABOUT = """Starts the real local services as plain processes, and stops them.

They keep their data in one folder (--data) and their binaries, downloaded once, in $STREAMFORGE_CACHE or
~/.cache/streamforge. To run several stacks side by side, give each its own --data and --port."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (StackError, PermissionError) as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stack: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> Parser:
    parser = Parser(prog="stack", description=_ABOUT)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(run=run)
        if name not in ("access", "topics", "fetch"):
            sub.add_argument(
                "--data", type=Path, default=Path(".stack"), metavar="DIR", help="the stack's folder (default: .stack)"
            )
        return sub

    default = f"default: {' '.join(DEFAULT)}"
    up = command("up", _up, "start services in the background and wait until they are healthy")
    up.add_argument("services", nargs="*", type=_name, metavar="SERVICE", help=f"{', '.join(SERVICES)} ({default})")
    up.add_argument(
        "--port", action="append", type=_port, default=[], metavar="NAME=PORT", help="use another port for NAME"
    )
    up.add_argument(
        "--secure",
        action="store_true",
        help="with TLS, passwords and access rules, created on the spot (docs/security.md)",
    )
    up.add_argument(
        "--kafka-heap", default="256m", metavar="SIZE", help="the broker's heap, as in -Xmx (default: 256m)"
    )
    down = command("down", _down, "stop services and keep their data")
    down.add_argument("services", nargs="*", type=_name, metavar="SERVICE", help="default: all in this folder")
    down.add_argument("--wipe", action="store_true", help="delete their data, too")
    status = command(
        "status", _status, "show the health of the started services; exits with 0 if all are healthy, else 1"
    )
    status.add_argument("services", nargs="*", type=_name, metavar="SERVICE", help="default: all that were started")
    logs = command("logs", _logs, "show the end of the logs")
    logs.add_argument("services", nargs="*", type=_name, metavar="SERVICE", help="default: all")
    logs.add_argument("--lines", type=_count, default=40, metavar="N", help="lines of each log (default: 40)")
    logs.add_argument("--follow", action="store_true", help="keep printing until Ctrl-C")
    topics = command("topics", _topics, "print the topics that the jobs need, as commands that make them")
    topics.add_argument("--partitions", type=_count, default=PARTITIONS, metavar="N", help="default: %(default)s")
    topics.add_argument("--replicas", type=_count, default=3, metavar="N", help="default: %(default)s")
    command("access", _access, "print the Kafka permissions that each program needs, as commands that grant them")
    look = command(
        "doctor", _doctor, "check this machine and the stack, and print what to change; exit status 0 if nothing"
    )
    look.add_argument("--json", action="store_true", help="print JSON")
    elsewhere = look.add_argument_group("another system", "checked instead if any of these is given")
    elsewhere.add_argument("--kafka", metavar="HOST:PORT")
    elsewhere.add_argument("--registry", metavar="URL", type=typed(Address))
    elsewhere.add_argument("--redis", metavar="URL", type=typed(StoreUrl))
    for system, kind in (("kafka", kafka_file), ("registry", registry_file), ("store", store_file)):
        elsewhere.add_argument(f"--{system}_config", metavar="FILE", type=typed(kind), help="how to connect to it")
    elsewhere.add_argument("--store_prefix", metavar="NAME", type=typed(store_prefix), default=PREFIX)
    elsewhere.add_argument("--bigquery", metavar="PROJECT.DATASET")
    elsewhere.add_argument("--folder", action="append", default=[], help="write, read and delete a file in it")
    elsewhere.add_argument(
        "--job", action="append", choices=list(JOBS), help="check the topics and tables of this job (default: all)"
    )
    elsewhere.add_argument(
        "--topic", action="append", default=[], metavar="NAME", help="check these topics (default: the jobs' own)"
    )
    fetch = command("fetch", _fetch, "download and build the services' binaries and the Flink job server jar")
    beside = f"in addition to the jar (default: {' '.join(FETCHED)})"
    fetch.add_argument("services", nargs="*", type=_name, metavar="SERVICE", help=beside)
    fetch.add_argument("--ask-again", action="store_true", help="try again to download Beam's own job server jar")
    return parser


def _name(text: str) -> str:
    try:
        service(text)
    except StackError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    known = sorted(port for make in SERVICES.values() for port in make().ports)
    if name not in known or not number.isdecimal() or not 0 < int(number) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PORT with a NAME of {', '.join(known)}")
    return name, int(number)


def _up(options: argparse.Namespace) -> int:
    services = [Kafka(heap=options.kafka_heap) if s == "kafka" else s for s in options.services or DEFAULT]
    Stack(options.data, services, ports=dict(options.port), console=Console(sys.stderr), secure=options.secure).start()
    return 0


def _down(options: argparse.Namespace) -> int:
    console = Console(sys.stderr)
    if not Stack(options.data, (), console=console).stop(*options.services, wipe=options.wipe):
        console.line(f"nothing was running in {options.data}")
    return 0


def _status(options: argparse.Namespace) -> int:
    states = Stack(options.data, ()).states(*options.services)
    for state in states:
        how = (
            "healthy"
            if state.healthy
            else f"unhealthy, see {state.log}"
            if state.pid
            else f"not running, see {state.log}"
        )
        print(f"{state.name:<14} {state.address:<22} {f'pid {state.pid}' if state.pid else '-':<12} {how}")
    if not states:
        print(f"nothing is up in {options.data}")
    return 0 if states and all(state.healthy for state in states) else 1


def _doctor(options: argparse.Namespace) -> int:
    at = doctor.Addresses(
        jobs=tuple(options.job or JOBS),
        topics=tuple(options.topic),
        kafka=options.kafka and Brokers(options.kafka, options.kafka_config),
        registry=options.registry and Address(options.registry, options.registry_config),
        redis=options.redis and StoreUrl(options.redis, options.store_config),
        prefix=options.store_prefix,
        bigquery=options.bigquery,
        folders=tuple(options.folder),
    )
    elsewhere = at.kafka or at.registry or at.redis or at.bigquery or at.folders
    findings = list(doctor.system(at) if elsewhere else doctor.local(options.data))
    print(doctor.told(findings, options.json))
    return 0 if all(finding.ok for finding in findings) else 1


def _logs(options: argparse.Namespace) -> int:
    folder = options.data / "logs"
    paths = [folder / f"{name}.log" for name in options.services] or sorted(folder.glob("*.log"))
    if not paths or not all(path.exists() for path in paths):
        raise StackError(f"no logs in {folder}: nothing was started there yet")
    ends = {}
    for path in paths:
        content = path.read_bytes()
        ends[path] = len(content)
        lines = content.decode(errors="replace").splitlines()
        for line in lines[max(0, len(lines) - options.lines) :]:
            print(f"{path.stem} | {line}" if len(paths) > 1 else line)
    while options.follow:
        sys.stdout.flush()
        time.sleep(0.3)
        for path in paths:
            ends[path] = _print_from(path, ends[path], f"{path.stem} | " if len(paths) > 1 else "")
    return 0


def _topics(options: argparse.Namespace) -> int:
    for name in TOPICS:
        own = "".join(f" --config={key}={value}" for key, value in config(name).items())
        print(
            f"kafka-topics --create --if-not-exists --topic={name} --partitions={options.partitions} "
            f"--replication-factor={options.replicas}{own}"
        )
    return 0


def _access(options: argparse.Namespace) -> int:  # noqa: ARG001
    for grant in grants():
        kind = "--resource-pattern-type=prefixed " if grant.prefix else ""
        words = " ".join(f"--operation={word.title().replace('_', '')}" for word in grant.operations)
        who = f"--allow-principal=User:{grant.principal} {words}"
        print(f"kafka-acls --add {who} {kind}--{grant.resource.lower()}={grant.name}  # {grant.why}")
    return 0


def _print_from(path: Path, position: int, prefix: str) -> int:
    """Prints the whole lines after the position; a log that became shorter was begun anew."""
    with path.open("rb") as file:
        file.seek(position if position <= path.stat().st_size else 0)
        start = file.tell()
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        print(prefix + line)
    return start + len(whole)


def _fetch(options: argparse.Namespace) -> int:
    console = Console(sys.stderr)
    Stack(services=options.services or FETCHED, console=console).fetch()
    console.line(f"job server: {job_server_jar(console, ask_again=options.ask_again)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
