"""What the launcher of flex templates starts; the image says which job.

The launcher runs a file, and no module. It is this one for every job, outside the package: beside a job's own file,
Python would find the package's modules as `cdc`, `options` and so on, too.
"""

import importlib
import os
import sys

job = importlib.import_module(f"beam_pipelines.{os.environ['STREAMFORGE_JOB']}")
arguments = sys.argv[1:]
# The template names the workers' image too. Whatever comes of that, they need one with this very code.
if not any(argument.startswith("--sdk_container_image") for argument in arguments):
    arguments.append(f"--sdk_container_image={os.environ['STREAMFORGE_WORKER_IMAGE']}")
job.main(arguments)
