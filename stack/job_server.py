"""The jar of Beam's Flink job server, which `--runner=FlinkRunner` starts by itself."""

import importlib.metadata
import re
import urllib.request
import zipfile
from pathlib import Path

from stack.artefacts import cache_folder, maven
from stack.console import SILENT, Console
from stack.process import exclusive

__all__ = ["FLINK_VERSION", "beam_version", "built_job_server_jar", "job_server_jar", "pauses_leak"]

FLINK_VERSION = "1.19"
"""The pipeline option --flink_version that goes with the job server jars and the cluster of this module."""

_REACH_TIMEOUT_S = 4
_NO_LEAK = (2, 76)  # the first release in which a paused splittable source leaves nothing behind
_MENDED = b"StreamForge-Bounded-Residuals: true"  # in the manifest of ours, which is older


def job_server_jar(console: Console = SILENT, *, ask_again: bool = False) -> Path:
    """The jar for --flink_job_server_jar: Beam's own where it can be downloaded, else the one that we build.

    Args:
        ask_again: forget that Beam's own could not be reached, which is otherwise remembered per Beam version.
    """
    return _beams_job_server_jar(console, ask_again) or built_job_server_jar(console)


def built_job_server_jar(console: Console = SILENT) -> Path:
    """The job server jar that also holds Beam's KafkaIO, as a native Flink source, and the expansion service for it."""
    return maven("flink-job-server", console) / "flink-job-server.jar"


def beam_version(jar: str) -> tuple[int, int] | None:
    """The release of Beam that a job server jar was made of; None where that cannot be told."""
    try:
        with zipfile.ZipFile(jar) as content:
            text = content.read("org/apache/beam/sdk/sdk.properties").decode("utf-8", "replace")
        found = re.search(r"^version=(\d+)\.(\d+)", text, re.MULTILINE)
    except (OSError, KeyError, zipfile.BadZipFile):
        # Not here to be looked into, or another's: Beam's own are named for their release.
        found = re.search(r"job-server-(\d+)\.(\d+)", jar.rpartition("/")[2])
    return (int(found[1]), int(found[2])) if found else None


def pauses_leak(jar: str) -> bool:
    """Whether every pause of a splittable source registers one more state in this job server, for good (ADR 9).

    False also where that cannot be told.
    """
    version = beam_version(jar)
    if version is None or version >= _NO_LEAK:
        return False
    try:
        with zipfile.ZipFile(jar) as content:
            return _MENDED not in content.read("META-INF/MANIFEST.MF")
    except (OSError, KeyError, zipfile.BadZipFile):
        return True


def _beams_job_server_jar(console: Console, ask_again: bool) -> Path | None:
    """Beam's own jar in Beam's own cache; None where it cannot be reached, which is remembered."""
    try:
        beam = importlib.metadata.version("apache-beam")
    except importlib.metadata.PackageNotFoundError:
        return None
    answer = cache_folder() / f"beam-{beam}-job-server-{FLINK_VERSION}"
    with exclusive(cache_folder() / "lock"):
        if answer.exists() and not ask_again:
            known = answer.read_text()
            if not known or Path(known).exists():
                return Path(known) if known else None
        jar = _download_beams_job_server_jar(console)
        fresh = answer.with_suffix(".new")
        fresh.write_text(str(jar or ""))
        fresh.replace(answer)
    return jar


def _download_beams_job_server_jar(console: Console) -> Path | None:
    from apache_beam.utils.subprocess_server import JavaJarServer  # slow to import, and needed once

    target = f":runners:flink:{FLINK_VERSION}:job-server:shadowJar"
    url = JavaJarServer.path_to_beam_jar(target)
    mirror = url.replace(JavaJarServer.MAVEN_CENTRAL_REPOSITORY, JavaJarServer.GOOGLE_MAVEN_MIRROR)
    held = Path(url).exists() or (Path(JavaJarServer.JAR_CACHE) / Path(url).name).exists()
    if not held and not (_reachable(url) or _reachable(mirror)):
        console.line("flink-job-server: Beam's own jar is out of reach, ours will be built")
        return None
    console.line("flink-job-server: downloading Beam's own jar")
    try:
        jar = Path(JavaJarServer.local_jar(url))
    except (OSError, RuntimeError) as error:
        console.line(f"flink-job-server: Beam's own jar failed to download ({error}), ours will be built")
        return None
    if not zipfile.is_zipfile(jar):  # a download that broke off; Beam would take it for good
        jar.unlink()
        console.line("flink-job-server: Beam's own jar arrived broken, ours will be built")
        return None
    return jar


def _reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False
