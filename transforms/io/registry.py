"""The schema registry (Confluent API) as a function from id to schema, and the other way round."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.addresses import Address
from schemas.codec import UnknownSchema, canonical

__all__ = ["Registry"]

_RACE_WAITS_S = (0.1, 0.4)


class Registry:
    """Schemas by id. Answers are cached by the client, except that an id is unknown: it may be registered later.

    Args:
      url: base URL of the Confluent API, as `http://127.0.0.1:8081/apis/ccompat/v7`.
    """

    def __init__(self, url: str | Address):
        self._url = Address(url)
        self._client = SchemaRegistryClient({"url": self._url.reveal(), "timeout": 10})

    def check(self) -> None:
        """Raises: OSError when no registry answers at the URL."""
        try:
            self._client.get_subjects()
        except (SchemaRegistryError, httpx2.HTTPError) as e:
            raise OSError(f"no schema registry answers at {self._url}: {self._url.hide(e)}") from None

    def schema(self, schema_id: int) -> dict[str, Any]:
        """Raises: UnknownSchema; SchemaRegistryError and httpx errors when the registry cannot answer."""
        try:
            found = self._client.get_schema(schema_id)
        except SchemaRegistryError as e:
            if e.http_status_code == 404:
                raise UnknownSchema(f"no schema with id {schema_id} in the registry") from e
            raise
        if found.schema_type != "AVRO":
            raise UnknownSchema(f"schema {schema_id} is {found.schema_type}, not Avro")
        parsed: dict[str, Any] = json.loads(found.schema_str or "")
        return parsed

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Registers a schema (again) and returns its id.

        Raises:
          SchemaRegistryError: status 409 when it is not compatible with the subject's history.
        """
        registered = Schema(canonical(schema), "AVRO")
        for wait_s in _RACE_WAITS_S:
            try:
                return int(self._client.register_schema(subject, registered))
            except SchemaRegistryError as e:
                # 409 is also the answer to the slower one of two workers that register the same schema at once.
                if e.http_status_code != 409:
                    raise
            time.sleep(wait_s)
        return int(self._client.register_schema(subject, registered))
