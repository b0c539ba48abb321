"""The images of docker/bake.hcl, really built and run where there is no Docker: by buildah, which needs no daemon.

What cannot be pulled is stood in for, and nothing else: Debian by debootstrap's Debian, Beam's container by its boot
program built from the same release, Flink's by the jars of its Python package, Google's template launcher by a script.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2

from stack.flink_processes import flink_libraries

__all__ = ["ROOT", "Image", "Images", "Target", "targets"]

ROOT = Path(__file__).parents[2]
_HOME = ROOT / ".stack" / "images"
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
# How pip reaches its index, when the machine says that it is reached in another way.
_PIP = ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
_BOOT = "github.com/apache/beam/sdks/v2/python/container@v2.77.0"
_EXCLUDED = ("doc", "groff", "info", "linda", "lintian", "locale", "man")
# Of the releases that Maven Central's mirrors have; only that a plugin in its folder is found is shown with it.
_GS_PLUGIN = "org.apache.flink:flink-gs-fs-hadoop:1.20.0"


@dataclass(frozen=True)
class Target:
    """What docker/bake.hcl says of one image."""

    name: str
    stage: str
    tags: tuple[str, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)


def targets(text: str | None = None) -> dict[str, Target]:
    """By name, variables at their defaults and matrices spelled out."""
    document = hcl2.loads(text or (ROOT / "docker" / "bake.hcl").read_text())
    values = {_bare(name): _bare(body["default"]) for block in document["variable"] for name, body in block.items()}
    found: dict[str, Target] = {}
    for block in document["target"]:
        for quoted, body in block.items():
            name = _bare(quoted)
            for job in [_bare(job) for job in body.get("matrix", {}).get("job", ['""'])]:
                known = {**values, "job": job}
                if not name.startswith("_"):
                    target = Target(
                        _filled(body.get("name", quoted), known),
                        _filled(body["target"], known),
                        tuple(_filled(tag, known) for tag in body["tags"]),
                        {k: _filled(v, known) for k, v in body.get("args", {}).items() if not k.startswith("__")},
                    )
                    found[target.name] = target
    return found


def _bare(text: str) -> str:
    return text.strip('"')


def _filled(text: str, values: Mapping[str, str]) -> str:
    text = _bare(text)
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


@dataclass(frozen=True)
class Image:
    """A built one.

    Attributes:
      root: its files, unpacked.
      config: user, entry point and so on, in the OCI's words.
    """

    images: Images
    name: str
    container: str
    root: Path
    config: Mapping[str, Any]

    @property
    def megabytes(self) -> float:
        """Unpacked: what its files hold, each counted once however many names it has."""
        seen: dict[tuple[int, int], int] = {}
        for path in self.root.rglob("*"):
            about = path.lstat()
            seen[about.st_dev, about.st_ino] = about.st_size
        return sum(seen.values()) / 1e6

    def writable(self, uid: int = 10001) -> list[str]:
        """Folders and files that this user may write to, apart from what lies in one that is named."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.root:  # a running container's are the machine's
                folders[:] = [name for name in folders if name not in ("dev", "proc", "sys")]
            for name in list(folders) + files:
                path = Path(folder, name)
                about = path.lstat()
                mine = (about.st_uid == uid and about.st_mode & 0o200) or about.st_mode & 0o002
                if mine and not path.is_symlink():
                    found.append(f"/{path.relative_to(self.root)}")
                    if name in folders:
                        folders.remove(name)
        return sorted(found)

    def command(
        self, *words: str, entrypoint: Sequence[str] | None = None, volumes: Mapping[Path, str] | None = None
    ) -> list[str]:
        """What runs it as its own user, with the machine's network; its entry point goes before the words."""
        start = self.config.get("Entrypoint") or [] if entrypoint is None else entrypoint
        mounts = [word for host, inside in (volumes or {}).items() for word in ("--volume", f"{host}:{inside}")]
        return [*self.images.buildah("run", "--isolation", "chroot", *mounts, self.container, "--"), *start, *words]

    def output(self, *words: str, entrypoint: Sequence[str] | None = None) -> str:
        """What it prints until it ends, which it does with status 0."""
        done = subprocess.run(
            self.command(*words, entrypoint=entrypoint), capture_output=True, text=True, check=False, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def running(
        self,
        log: Path,
        *words: str,
        entrypoint: Sequence[str] | None = None,
        volumes: Mapping[Path, str] | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """It runs while the block does, and is told to end as Docker tells it."""
        with log.open("wb") as output:
            command = self.command(*words, entrypoint=entrypoint, volumes=volumes)
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                finally:
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()


class Images:
    """Built on demand, with layers kept below .stack/images for the next time."""

    def __init__(self, home: Path = _HOME) -> None:
        """
        Raises:
          RuntimeError: something that this needs is missing.
        """
        missing = [name for name in ("buildah", "debootstrap") if not shutil.which(name)]
        if missing:
            raise RuntimeError(f"to build the images without Docker: apt-get install {' '.join(missing)}")
        if os.geteuid():
            raise RuntimeError("to build the images without Docker one must be root: debootstrap and chroot ask for it")
        self._home = home
        self._work = home / "work"
        self._work.mkdir(parents=True, exist_ok=True)
        self._built: dict[str, Image] = {}
        self._lock = (home / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # two at once: the second waits
        self._run("rm", "--all")  # of one that was killed: its files are still mounted

    def buildah(self, *words: str) -> list[str]:
        store = ("--root", str(self._home / "store"), "--runroot", str(self._home / "run"))
        return ["nice", "-n", "10", "buildah", *store, *words]

    def built(self, name: str) -> Image:
        """A target of docker/bake.hcl.

        Raises:
          RuntimeError: it cannot be built.
        """
        if name not in self._built:
            tag = self.build(targets()[name])
            container = self._run("from", tag).strip()
            root = Path(self._run("mount", container).strip())
            config = json.loads(self._run("inspect", "--type", "image", tag))["Docker"]["config"]
            self._built[name] = Image(self, name, container, root, config)
        return self._built[name]

    def build(self, target: Target) -> str:
        """Its name.

        Raises:
          RuntimeError: it cannot be built.
        """
        arguments = {**self._stand_ins(target.stage), **target.arguments}
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        # Layers of Maven's are kept too, but the first time its repository on this machine saves a download.
        cache = [f"--volume={m2}:/root/.m2"] if (m2 := Path.home() / ".m2").is_dir() else []
        tag = f"localhost/{target.tags[0]}"
        self._run(
            *("bud", "--isolation", "chroot", "--format", "docker", "--layers", *cache, *given),
            *("--target", target.stage, "--tag", tag, "--file", str(ROOT / "docker" / "Dockerfile"), str(ROOT)),
        )
        return tag

    def close(self) -> None:
        self._run("rm", "--all")
        self._built.clear()
        self._lock.close()

    def _run(self, *words: str) -> str:
        done = subprocess.run(self.buildah(*words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"buildah {shlex.join(words)}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def _stand_ins(self, stage: str) -> dict[str, str]:
        """Build arguments for what the registries of images would give."""
        known = {"DEBIAN": self._debian()}
        if stage in ("worker", "launcher", "flex"):
            known["BEAM_SDK"] = self._beam_sdk()
        if stage == "flink":
            known["FLINK"] = self._flink()
        if stage == "flex":
            known["TEMPLATE_LAUNCHER"] = self._template_launcher()
        return known

    def _debian(self) -> str:
        folder = self._work / "debian"
        if not (folder / "base.tar").exists():
            root = folder / "root"
            shutil.rmtree(folder, ignore_errors=True)
            root.mkdir(parents=True)
            _call("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root))
            # As the slim images are: no manuals and no folder for them, no translations, and apt keeps nothing.
            excluded = "".join(f"path-exclude /usr/share/{name}/*\n" for name in _EXCLUDED)
            (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(f"{excluded}path-include /usr/share/doc/*/copyright\n")
            shutil.rmtree(root / "usr/share/man")
            shutil.rmtree(root / "usr/share/locale")
            (root / "etc/apt/apt.conf.d/docker-clean").write_text(
                'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };\n'
                'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
            )
            # Security fixes come from a suite of their own.
            sources = [f"deb http://deb.debian.org/debian bookworm{part} main\n" for part in ("", "-updates")]
            sources.append("deb http://deb.debian.org/debian-security bookworm-security main\n")
            (root / "etc/apt/sources.list").write_text("".join(sources))
            # Whom this machine trusts: there may be a proxy between it and the registries of packages.
            for certificate in _CERTIFICATES.glob("*.crt"):
                shutil.copy(certificate, root / _CERTIFICATES.relative_to("/"))
            _call("chroot", str(root), "update-ca-certificates")
            for rest in ("var/cache/apt", "var/lib/apt/lists"):
                shutil.rmtree(root / rest)
                (root / rest / "partial").mkdir(parents=True)
            _call("tar", "-C", str(root), "-cf", str(folder / "new.tar"), ".")
            shutil.rmtree(root)
            (folder / "new.tar").rename(folder / "base.tar")
        pip = "".join(f"ENV {name}={shlex.quote(os.environ[name])}\n" for name in _PIP if name in os.environ)
        return self._stand_in("debian", f"FROM scratch\nADD base.tar /\n{pip}", folder)

    def _beam_sdk(self) -> str:
        folder = self._work / "beam-sdk"
        beam = folder / "opt" / "apache" / "beam"
        if not (beam / "boot").exists():
            beam.mkdir(parents=True, exist_ok=True)
            _call("go", "install", _BOOT, GOBIN=str(folder), CGO_ENABLED="0")
            for name in ("LICENSE", "NOTICE"):
                (beam / name).touch()
            (folder / "container").rename(beam / "boot")
        return self._stand_in("beam-sdk", "FROM scratch\nCOPY opt /opt\n", folder)

    def _flink(self) -> str:
        folder = self._work / "flink"
        opt = folder / "flink" / "opt"
        if not any(opt.glob("*.jar")):
            libraries = flink_libraries()
            shutil.rmtree(folder, ignore_errors=True)
            for name in ("conf", "log", "opt", "plugins/metrics-prometheus"):
                (folder / "flink" / name).mkdir(parents=True)
            shutil.copytree(libraries, folder / "flink" / "lib")
            for reporter in (folder / "flink" / "lib").glob("flink-metrics-prometheus-*.jar"):
                shutil.move(reporter, folder / "flink" / "plugins" / "metrics-prometheus")
            _call("mvn", "-q", "-B", "dependency:get", f"-Dartifact={_GS_PLUGIN}", "-Dtransitive=false")
            group, name, version = _GS_PLUGIN.split(":")
            repository = Path.home() / ".m2" / "repository" / group.replace(".", "/") / name / version
            shutil.copy(repository / f"{name}-{version}.jar", opt)
        java = "apt-get install -y --no-install-recommends openjdk-17-jre-headless"
        recipe = f"FROM {self._debian()}\nRUN mkdir -p /usr/share/man/man1 && apt-get update && {java}\n"
        recipe += "ENV FLINK_HOME=/opt/flink\nCOPY flink /opt/flink\n"
        return self._stand_in("flink", recipe, folder)

    def _template_launcher(self) -> str:
        folder = self._work / "template-launcher"
        folder.mkdir(exist_ok=True)
        launcher = folder / "python_template_launcher"
        launcher.write_text('#!/bin/sh\nexec python "$FLEX_TEMPLATE_PYTHON_PY_FILE" "$@"\n')
        launcher.chmod(0o755)
        recipe = "FROM scratch\nCOPY python_template_launcher /opt/google/dataflow/python_template_launcher\n"
        return self._stand_in("template-launcher", recipe, folder)

    def _stand_in(self, name: str, recipe: str, folder: Path) -> str:
        tag = f"localhost/stand-in-{name}:test"
        file = self._work / f"{name}.Dockerfile"
        file.write_text(recipe)
        self._run("bud", "--isolation", "chroot", "--layers", "--tag", tag, "--file", str(file), str(folder))
        return tag


def _call(*words: str, **environment: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)}: {(done.stdout + done.stderr)[-2000:]}")
