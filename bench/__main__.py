"""python -m bench throughput | latency | jobs | cdc | serving | decode"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import cdc, decode, jobs, latency, serving, throughput
from bench.contestants import PeerMissing
from schemas.flags import Parser
from stack import StackError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="bench", description="Measures the jobs and the API; bench/README.md says how.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    modules = {
        "throughput": throughput,
        "latency": latency,
        "jobs": jobs,
        "cdc": cdc,
        "serving": serving,
        "decode": decode,
    }
    for name, module in modules.items():
        about = (module.__doc__ or "").strip()
        command = commands.add_parser(name, help=about.splitlines()[0], description=about)
        module.add_arguments(command)
        command.set_defaults(run=module.main)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (StackError, PeerMissing) as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
