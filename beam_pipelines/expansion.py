"""The Java expansion service that builds the native Kafka read into a pipeline.

It is needed for some seconds, while the pipeline is made; nothing of it runs beside the job.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apache_beam.transforms.external import ExternalTransform

from beam_pipelines.options import Settings
from schemas.flags import UsageError

__all__ = ["service"]

_REACH_TIMEOUT_S = 5


def service(settings: Settings) -> Any:
    """What Beam's cross-language transforms take as their expansion service.

    Raises:
      UsageError: the one that the flag names does not answer, or ours cannot be had.
    """
    from stack.errors import StackError
    from stack.flink import built_job_server_jar

    address = settings.expansion_service
    try:
        if address is None:
            built_job_server_jar()
            return _own()
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=_REACH_TIMEOUT_S).close()
    except StackError as e:
        raise UsageError("--kafka_read=native", e) from e
    except (OSError, OverflowError) as e:
        raise UsageError("--expansion_service", f"nothing answers at {address}: {e}") from e
    return address


@contextmanager
def _own() -> Iterator[Any]:
    from stack import Stack

    with (
        tempfile.TemporaryDirectory(prefix="streamforge-expansion-") as folder,
        Stack(folder, ["expansion"], ports="free") as stack,
        ExternalTransform.service(stack.address("expansion")) as stub,
    ):
        yield stub
