"""Makes API keys: python -m serving.keys new NAME"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence

from schemas.flags import Parser
from serving.api_keys import KEY_NAME, SCOPES, sha256

__all__ = ["main"]


def _name(text: str) -> str:
    if not KEY_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be 1 to 64 letters, digits or any of . _ -, not {text!r}")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m serving.keys",
        description="Creates API keys. Prints two lines: the key itself, for its owner and never shown again, and "
        "NAME:SHA256[:SCOPES], for the file of `python -m serving --api_keys=FILE`.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="new")
    new = commands.add_parser("new", help="create a key", description="Creates a key.")
    new.add_argument("name", type=_name, metavar="NAME", help="the key's owner; rate limits count per name")
    new.add_argument(
        "--scope",
        choices=SCOPES,
        action="append",
        help="what the key is for: read answers, write events (POST /events), decide on orders (POST /decisions), or "
        "label alerts (PUT /fraud-alerts/…/state); repeatable (default: read)",
    )
    args = parser.parse_args(argv)
    key, scopes = "sf_" + secrets.token_urlsafe(32), "+".join(dict.fromkeys(args.scope or []))
    sys.stdout.write(f"{key}\n{args.name}:{sha256(key)}{scopes and f':{scopes}'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
