"""The ceiling: a Flask app that says hello in JSON, on the server and with the threads that ours has.

python -m bench.peers.bare_flask PORT WORKERS
"""

from __future__ import annotations

import sys

from flask import Flask, Response
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from serving import Config
from serving.server import threads

_HELLO = b'{"success":true,"data":{"hello":"world"},"count":1}'


def app() -> Flask:
    flask = Flask("bare", static_folder=None)

    @flask.get("/hello/<user_id>")
    def hello(user_id: str) -> Response:  # noqa: ARG001
        return Response(_HELLO, content_type="application/json")

    return flask


def main(port: int, workers: int) -> None:
    Server(
        "bare",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        workers=workers,
        blocking_threads=threads(Config()),
        log_level=LogLevels.error,
    ).serve(target_loader=app, wrap_loader=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
