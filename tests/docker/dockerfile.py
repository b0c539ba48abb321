"""A Dockerfile as stages, and what is wrong with it that hadolint does not know to be wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Stage", "problems", "stages"]

_SECRET = re.compile(r"\b\w*(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY|CREDENTIAL)\w*\s*[= ]", re.IGNORECASE)


@dataclass
class Stage:
    """
    Attributes:
      base: as written.
      instructions: (word in capitals, the rest in one line), in order.
    """

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str | None:
        return next((rest for each, rest in reversed(self.instructions) if each == word), None)


def stages(text: str) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first stage with their defaults, and the stages by name."""
    joined = re.sub(r"\\\n(\s*#.*\n)*", " ", text)
    arguments: dict[str, str] = {}
    found: dict[str, Stage] = {}
    now: Stage | None = None
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            now = found[name] = Stage(base)
        elif now is None:
            assert word == "ARG", line
            name, _, default = rest.partition("=")
            arguments[name] = default
        else:
            now.instructions.append((word, rest.strip()))
    return arguments, found


def problems(text: str, built: set[str]) -> list[str]:
    """
    Args:
      built: the stages that are images.
    """
    arguments, found = stages(text)
    wrong = [f"{name} is no stage" for name in sorted(built - found.keys())]
    wrong += [f"ARG {name}: {image} has no fixed tag" for name, image in arguments.items() if not _pinned(image)]
    for name, stage in found.items():
        if not (stage.base == "scratch" or stage.base in found or stage.base.strip("${}") in arguments):
            wrong.append(f"{name}: FROM {stage.base} is neither a stage nor one of the arguments at the top")
        for word, rest in stage.instructions:
            if word == "ADD":
                wrong.append(f"{name}: ADD unpacks and downloads; COPY does not")
            if word == "COPY" and rest.split()[0] in (".", "./"):
                wrong.append(f"{name}: COPY of everything")
            if word in ("ARG", "ENV") and _SECRET.search(f"{rest} "):
                wrong.append(f"{name}: {word} {rest.split('=')[0]} would stay in the image's history")
            if word == "RUN" and "pip" in rest and "install" in rest and not re.search(r"--require-hashes|\.whl", rest):
                wrong.append(f"{name}: pip install without hashes")
    for name in sorted(built & found.keys()):
        if (user := _inherited(found, name, "USER")) != "10001:10001":
            wrong.append(f"{name}: runs as {user}, not as 10001:10001")
        if name != "flink" and not (_inherited(found, name, "ENTRYPOINT") or "").startswith("["):
            wrong.append(f"{name}: no entry point in exec form, so no signal would reach the program")
    return wrong


def _pinned(image: str) -> bool:
    tag = image.rpartition(":")[2]
    return ":" in image and "/" not in tag and tag != "latest" and bool(re.search(r"\d", tag))


def _inherited(found: dict[str, Stage], name: str, word: str) -> str | None:
    stage: Stage | None = found[name]
    while stage:
        if value := stage.last(word):
            return value
        stage = found.get(stage.base)
    return None
