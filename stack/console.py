from typing import TextIO

__all__ = ["SILENT", "Console"]


class Console:
    """Lines for a person: final ones, and on a terminal one line that is rewritten while something takes time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._live = bool(stream and stream.isatty())
        self._shown = ""

    def line(self, text: str) -> None:
        if self._stream:
            self._erase()
            print(text, file=self._stream, flush=True)

    def waiting(self, text: str) -> None:
        if self._stream and self._live and text != self._shown:
            self._erase()
            self._stream.write(text)
            self._stream.flush()
            self._shown = text

    def _erase(self) -> None:
        if self._stream and self._shown:
            self._stream.write("\r" + " " * len(self._shown) + "\r")
        self._shown = ""


SILENT = Console()
