"""The command line of every program here: a usage error exits with status 2 and one line, naming flag and reason."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from schemas.addresses import scrub

__all__ = ["Parser", "UsageError", "typed"]

T = TypeVar("T")


class UsageError(Exception):
    """An error that the user can fix, reported as one line: the flag and the reason."""

    def __init__(self, flag: str, reason: object):
        super().__init__(f"{flag}: {' '.join(str(reason).split())}")


class Parser(argparse.ArgumentParser):
    """Flags cannot be abbreviated, multi-line help keeps its lines, and no error shows what could be a password.

    `read` and `parse_known_args` raise UsageError; `parse_args` exits the program. Subcommands use this class, too.
    """

    def __init__(self, **more: Any):
        written = "\n" in f"{more.get('description')}{more.get('epilog')}"
        shape = argparse.RawDescriptionHelpFormatter if written else argparse.HelpFormatter
        super().__init__(**{"formatter_class": shape, "allow_abbrev": False, **more})

    def error(self, message: str) -> NoReturn:
        flag, _, reason = message.removeprefix("argument ").partition(": ")  # "argument --until: invalid choice: …"
        raise UsageError(scrub(flag), f"{scrub(reason)}; see --help")

    def read(self, args: Any = None) -> argparse.Namespace:
        """Like `parse_args`, but raises UsageError."""
        return super().parse_args(args)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        try:
            return super().parse_args(args, namespace)
        except UsageError as e:
            self.stop(e)

    def stop(self, error: object) -> NoReturn:
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {error}\n")


def typed(convert: Callable[[str], T]) -> Callable[[str], T]:
    """Wraps a converter for `type=`, so that argparse shows the message of its ValueError or OSError, in one line."""

    def read(text: str) -> T:
        try:
            return convert(text)
        except (ValueError, OSError) as e:
            raise argparse.ArgumentTypeError(" ".join(str(e).split())) from None

    return read
