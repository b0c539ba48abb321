"""The jobs' pages and so all that a worker needs, imported once where workers are forked from (see `worker_pool`)."""

import gc
from importlib import import_module

import apache_beam.runners.worker.sdk_worker

from schemas.jobs import JOBS

__all__ = ["apache_beam"]

for job in JOBS.values():
    import_module(job.page)

gc.freeze()  # the collector would touch, and so copy, every page that workers share
