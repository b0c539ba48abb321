"""Spark on this machine, for the batch job: a separate environment, and the command that submits to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.artefacts import maven
from stack.console import Console
from stack.environment import python_of
from stack.java import java, java_home, java_version

__all__ = ["Spark"]

_NO_SUBJECT = 24  # from this Java on, Spark 3.5 needs a newer Hadoop client than pyspark's
_REQUIREMENTS = Path(__file__).parent / "spark.txt"


class Spark:
    """Spark in an environment of its own: what it needs would not go with what the streaming jobs need.

    Attributes:
      python: the environment's.
      jars: what is not in pyspark: Iceberg, SQLite's JDBC driver, the Avro reader.
    """

    def __init__(self, home: Path, console: Console):
        """Makes the environment, or makes it anew when its requirements changed.

        Args:
          home: its folder, as .stack/spark.

        Raises:
          StackError: Java or Maven is missing, or something could not be fetched.
        """
        java()
        self.python = python_of(home.absolute(), _REQUIREMENTS, console)
        self.jars = sorted(maven("spark", console).glob("*.jar"))
        self._class_path = [maven("spark-hadoop", console)] if java_version() >= _NO_SUBJECT else []
        (self._spark,) = self.python.parent.parent.glob("lib/*/site-packages/pyspark")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the command of `submit` needs to be set."""
        return {"SPARK_HOME": str(self._spark), "PYSPARK_PYTHON": str(self.python), "JAVA_HOME": java_home()}

    def submit(self, job: Path, package: Path, flags: Sequence[str], *, cores: int = 2, heap: str = "1g") -> list[str]:
        """The command that runs a job here and waits for it.

        Args:
          package: the zip of what it imports.
          flags: the job's own.
        """
        settings = {
            "spark.sql.shuffle.partitions": str(2 * cores),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        return [
            *(str(self._spark / "bin" / "spark-submit"), "--master", f"local[{cores}]", "--driver-memory", heap),
            *(part for folder in self._class_path for part in ("--driver-class-path", f"{folder}/*")),
            *("--jars", ",".join(map(str, self.jars)), "--py-files", str(package)),
            *(part for key, value in settings.items() for part in ("--conf", f"{key}={value}")),
            *(str(job), *flags),
        ]
