"""The jobs' pages and so all that a worker needs, imported once where workers are forked from (see `worker_pool`)."""

import gc
import warnings
from importlib import import_module

import apache_beam.runners.worker.sdk_worker

from schemas.jobs import JOBS

__all__ = ["apache_beam"]

# A forked worker runs the program's page once more, as multiprocessing does; that it is imported already is the point.
warnings.filterwarnings("ignore", r"'beam_pipelines\.\w+' found in sys\.modules", RuntimeWarning)

for job in JOBS.values():
    import_module(job.page)

gc.freeze()  # the collector would touch, and so copy, every page that workers share
