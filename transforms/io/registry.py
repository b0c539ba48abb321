"""The schema registry (Confluent API) as a function from id to schema and back."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from connections.registry import registry_client
from connections.settings import Watch, hide
from schemas.addresses import Address
from schemas.codec import Described, SchemaUnavailable, Undecodable, UnknownSchema, canonical
from schemas.references import inline

__all__ = ["WAITS_S", "Registry"]

_LOG = logging.getLogger(__name__)

_RACE_WAITS_S = (0.1, 0.4)
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses of a worker that gets no answer; then its bundle fails, and the runner begins again from its checkpoint."""

_UNKNOWN = 40403
_NO_SUCH_VERSION = (40401, 40402)
_UNKNOWN_FOR_S = 5.0
_MOST_UNKNOWN = 10_000
_MOST_REFERENCES = 100
_NO_ID = (1 << 31) - 1


class Registry:
    """Schemas by id. Answers are cached by the client.

    Only a registry can say that it does not know an id (error code 40403). Any other answer (a proxy's page, a
    redirect, 401, 503, half a JSON) says nothing of the records: it makes the job wait. An unknown id is asked for
    again after 5 s, as it may be registered by then, and not once for each of its records.

    Args:
      url: base URL of the Confluent API, as `http://127.0.0.1:8081/apis/ccompat/v7`.
      waits_s: pauses after which a registry that gives no answer is asked again.
    """

    def __init__(self, url: str | Address, waits_s: Sequence[float] = (), clock: Callable[[], float] = time.monotonic):
        self._url, self._waits_s, self._clock = Address(url), waits_s, clock
        self._watch = Watch(self._settings, clock)
        self._open()
        self._unknown: dict[int | str, tuple[float, str]] = {}

    def _settings(self) -> dict[str, str]:
        login = {} if self._url.user is None else {"basic.auth.user.info": self._url.user}
        return login | (registry_client(self._url.config) if self._url.config else {})

    def _open(self) -> None:
        self._client = SchemaRegistryClient({"url": str(self._url), "timeout": 10, **self._watch.settings})

    def check(self) -> None:
        """Raises: OSError when no registry answers at the URL, or another server does."""
        try:
            self._ask(lambda: self._client.get_subjects())
            self._find(_NO_ID)
        except UnknownSchema:
            pass
        except SchemaUnavailable as e:
            raise OSError(f"no schema registry answers at {self._url}: {e}") from None

    def schema(self, schema_id: int | str) -> dict[str, Any] | Described:
        """Of an id or a GUID; of Avro with the types that it refers to written out.

        Raises: UnknownSchema; Undecodable: what is registered is no JSON; SchemaUnavailable when there is no answer.
        """
        until_s, why = self._unknown.get(schema_id, (0.0, ""))
        if self._clock() < until_s:
            raise UnknownSchema(why)
        for wait_s in (*self._waits_s, None):
            try:
                return self._find(schema_id)
            except UnknownSchema as e:
                if len(self._unknown) >= _MOST_UNKNOWN:
                    self._unknown.clear()
                self._unknown[schema_id] = self._clock() + _UNKNOWN_FOR_S, str(e)
                raise
            except SchemaUnavailable as e:
                if wait_s is None:
                    raise
                _LOG.warning("the schema registry at %s does not answer: %s", self._url, e)
                time.sleep(wait_s)
        raise AssertionError("the last round returns or raises")

    def _find(self, schema_id: int | str) -> dict[str, Any] | Described:
        # A registry that does not know GUIDs at all answers as one that does not know this one.
        guid = isinstance(schema_id, str)

        def ask() -> Any:
            return (self._client.get_schema_by_guid if guid else self._client.get_schema)(schema_id)

        try:
            found = self._ask(ask, absent=guid)
        except SchemaRegistryError as e:
            if e.error_code == _UNKNOWN or guid:
                kind = "GUID" if guid else "id"
                raise UnknownSchema(f"no schema with {kind} {schema_id} in the registry") from e
            raise SchemaUnavailable(self._short(e)) from None
        if found.schema_type not in ("AVRO", "JSON", "PROTOBUF"):
            raise UnknownSchema(f"schema {schema_id} is {found.schema_type}; Avro, JSON and Protobuf are read")
        referenced: dict[tuple[str, int], tuple[str, Schema]] = {}
        if found.references and found.schema_type != "JSON":  # JSON text is read without its schema
            self._follow(found, schema_id, referenced, ())
        if found.schema_type != "AVRO":
            imports = tuple((name, other.schema_str or "") for name, other in referenced.values())
            return Described(found.schema_type, found.schema_str or "", imports)
        if not referenced:
            return _parsed(found, schema_id)
        return inline(_parsed(found, schema_id), [_parsed(other, schema_id) for _, other in referenced.values()])

    def _follow(
        self,
        schema: Schema,
        schema_id: int | str,
        found: dict[tuple[str, int], tuple[str, Schema]],
        path: tuple[tuple[str, int], ...],
    ) -> None:
        """Adds what a schema refers to, depth first."""
        for reference in schema.references or []:
            key = (reference.subject, reference.version)
            if key in found:
                continue
            if key in path or len(path) + len(found) >= _MOST_REFERENCES:
                raise Undecodable(f"schema {schema_id} refers to itself, or to more than {_MOST_REFERENCES} others")
            try:
                other = self._ask(lambda key=key: self._client.get_version(*key)).schema
            except SchemaRegistryError as e:
                if e.error_code in _NO_SUCH_VERSION:
                    raise UnknownSchema(f"schema {schema_id} refers to {key[0]} {key[1]}, which is not there") from e
                raise SchemaUnavailable(self._short(e)) from None
            self._follow(other, schema_id, found, (*path, key))
            found[key] = reference.name, other

    def _ask(self, question: Callable[[], Any], absent: bool = False) -> Any:
        """Raises: SchemaRegistryError with the registry's own code; SchemaUnavailable for all that no registry says."""
        if self._watch.changed():
            self._watch = Watch(self._settings, self._clock)
            self._open()
        try:
            answer = question()
        except SchemaRegistryError as e:
            if e.error_code in (_UNKNOWN, *_NO_SUCH_VERSION) or (absent and e.http_status_code == 404):
                raise
            raise SchemaUnavailable(self._short(e)) from None
        except (
            httpx2.HTTPError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            RecursionError,
        ) as e:  # JSON of another shape
            raise SchemaUnavailable(self._short(e)) from None
        schema = getattr(answer, "schema", answer)
        if isinstance(schema, Schema):
            texts = schema.schema_str, schema.schema_type
            if not all(isinstance(text, str) and text for text in texts):
                self._client.clear_caches()
                raise SchemaUnavailable("an answer without a schema")
        return answer

    def _short(self, error: Exception) -> str:
        """In one line, and without secrets; a proxy's page would fill the log."""
        return f"{type(error).__name__} {hide(self._url.hide(error), self._watch.settings)}"[:200]

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


def _parsed(found: Schema, schema_id: int | str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(found.schema_str or "")
    except (ValueError, RecursionError) as e:
        raise Undecodable(f"schema {schema_id} is not JSON: {str(e)[:200]}") from e
    return parsed
