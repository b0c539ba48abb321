"""One page per job.

Importing Beam without its optional Google parts warns of that on the root logger, in every process; nobody who runs a
job on a laptop can do anything with it.
"""

import logging

logging.getLogger().addFilter(lambda record: not str(record.msg).startswith("apitools not found"))
