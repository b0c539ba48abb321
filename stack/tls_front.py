"""TLS, and a registry's basic authentication, before a service that has neither: python -m stack.tls_front

It starts the service, and ends with it. Valkey's own users are checked by Valkey; what it comes without here is TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import re
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.flags import Parser
from stack.ports import HOST

__all__ = ["main"]

_CHUNK = 1 << 16
_MOST_HEAD = 1 << 16
_NAME = re.compile("[a-z][a-z-]*")
_REFUSED = (
    b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="registry"\r\nContent-Type: application/json\r\n'
    b'Content-Length: 47\r\nConnection: close\r\n\r\n{"error_code":40101,"message":"not authorized"}\n'
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m stack.tls_front", description="TLS before a service.")
    parser.add_argument("--port", type=int, required=True, help="to listen on")
    parser.add_argument("--to", required=True, metavar="PORT|SOCKET", help="where the service listens")
    parser.add_argument("--certificate", type=Path, required=True, metavar="FILE", help="certificate and key")
    parser.add_argument(
        "--passwords", type=Path, metavar="FOLDER", help="ask for basic authentication: FOLDER/user/password"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the service's command")
    return asyncio.run(_run(parser.parse_args(arguments)))


async def _run(options: argparse.Namespace) -> int:
    command = [word for i, word in enumerate(options.command) if i or word != "--"]
    service = await asyncio.create_subprocess_exec(*command)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate)
    server = await asyncio.start_server(
        lambda reader, writer: _serve(reader, writer, options), HOST, options.port, ssl=context, limit=_MOST_HEAD
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):  # which the service, of the same group, gets too
        loop.add_signal_handler(number, lambda: None)
    async with server:
        return await service.wait()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, options: argparse.Namespace) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        if options.to.isdecimal():
            there, back = await asyncio.open_connection(HOST, int(options.to))
        else:
            there, back = await asyncio.open_unix_connection(options.to)
        with contextlib.closing(back):
            forth = _requests(reader, back, writer, options.passwords) if options.passwords else _copy(reader, back)
            tasks = [asyncio.ensure_future(forth), asyncio.ensure_future(_copy(there, writer))]
            _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    with contextlib.suppress(OSError, ssl.SSLError):
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()


async def _requests(
    reader: asyncio.StreamReader, service: asyncio.StreamWriter, client: asyncio.StreamWriter, passwords: Path
) -> None:
    """Lets requests through one by one, those of users who are known."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if not _known(headers.get(b"authorization", b""), passwords) or b"transfer-encoding" in headers:
            client.write(_REFUSED)
            await client.drain()
            return
        service.write(head + await reader.readexactly(int(headers.get(b"content-length", b"0"))))
        await service.drain()


def _known(authorization: bytes, passwords: Path) -> bool:
    kind, _, login = authorization.partition(b" ")
    try:
        user, _, password = base64.b64decode(login, validate=True).decode().partition(":")
        right = (passwords / user / "password").read_text() if _NAME.fullmatch(user) else ""
    except (ValueError, OSError):
        return False
    return kind.lower() == b"basic" and right != "" and hmac.compare_digest(password.encode(), right.encode())


if __name__ == "__main__":
    sys.exit(main())
