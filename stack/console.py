from typing import TextIO

__all__ = ["SILENT", "Console"]


class Console:
    """Lines for a person: final ones, and on a terminal one line that is rewritten while something takes time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._live = bool(stream and stream.isatty())
        self._width = 0

    def line(self, text: str) -> None:
        if self._stream:
            self._erase()
            print(text, file=self._stream, flush=True)

    def waiting(self, text: str) -> None:
        if self._stream and self._live:
            self._erase()
            self._stream.write(text)
            self._stream.flush()
            self._width = len(text)

    def _erase(self) -> None:
        if self._stream and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
        self._width = 0


SILENT = Console()
