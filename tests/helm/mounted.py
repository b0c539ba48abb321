"""The files that pods mount, as folders of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helm.chart import CHART

__all__ = ["here"]

_PLACE = "/etc/streamforge/"
_KAFKA = """security.protocol=SASL_PLAINTEXT
sasl.mechanism=SCRAM-SHA-512
sasl.username=fraud-detector
sasl.password=${file:/etc/streamforge/kafka/password}
"""
_TEN_MINUTES = (CHART.parents[1] / "docs" / "ten-minutes.md").read_text(encoding="utf-8")
_FILES = {
    "kafka/kafka.properties": _KAFKA,
    "kafka/password": "drawn\n",
    "registry/registry.properties": "basic.auth.user.info=jobs:${file:/etc/streamforge/registry/password}\n",
    "registry/password": "drawn\n",
    "store/store.properties": (CHART / "files" / "store.properties").read_text(),
    "store/password": "drawn\n",
    "store/ca.pem": "",
    "webhooks/webhooks.properties": "shopify.secret=${file:/etc/streamforge/webhooks/shopify}\n",
    "webhooks/shopify": "drawn\n",
    "mapping/ours.yaml": re.findall(r"cat > ours.yaml <<'END'\n(.*?)END\n", _TEN_MINUTES, re.DOTALL)[0],
    "api-keys/keys": f"somebody:{'0' * 64}\n",
    "rules/fraud_rules.yaml": (CHART.parents[1] / "transforms" / "domain" / "fraud_rules.yaml").read_text(),
}


def here(args: list[str], folder: Path) -> list[str]:
    """The arguments with files in a folder that Secrets and ConfigMaps would hold."""
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace(_PLACE, f"{folder}/"))
    return [arg.replace(_PLACE, f"{folder}/") for arg in args]
