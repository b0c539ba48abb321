"""What a worker needs, imported once in the process that workers are forked from (see `worker_pool`)."""

import gc

import apache_beam.runners.worker.sdk_worker
import confluent_kafka
import fastavro
import numpy as np
import redis

import transforms.archive
import transforms.cdc
import transforms.fraud
import transforms.gather
import transforms.io.archive_files
import transforms.io.bigquery
import transforms.io.files
import transforms.io.kafka
import transforms.io.redis
import transforms.io.redis_cdc
import transforms.io.registry
import transforms.sessions

__all__ = ["apache_beam", "confluent_kafka", "fastavro", "np", "redis", "transforms"]

gc.freeze()  # the collector would touch, and so copy, every page that workers share
