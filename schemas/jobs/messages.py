"""Flags of jobs whose input may be other people's messages."""

from __future__ import annotations

from typing import Final

from schemas.jobs.declaration import Flag

__all__ = ["FORMAT", "MAPPING"]

FORMAT: Final = Flag(
    "format",
    "format",
    "framing of messages: json, confluent (Avro, JSON Schema or Protobuf, according to the registry), single_object "
    "(Avro) or cloudevents; auto: detect it for each message, and log what was found at the start; topic=json, or "
    "json,topic=confluent, for one topic of several",
    default="auto",
)

MAPPING: Final = Flag(
    "mapping",
    "mapping",
    "how to turn foreign messages into orders or clicks: a YAML file, local or gs:// (docs/mapping.md), or a built-in "
    "mapping: ga4, segment, shopify, snowplow, woocommerce; topic=shopify for one topic of several",
    asked="How to turn messages into orders or clicks: a YAML file on gs://, or ga4, segment, shopify, snowplow or "
    "woocommerce; topic=shopify,other=ga4 for one topic each",
)
