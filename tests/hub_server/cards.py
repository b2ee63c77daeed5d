"""A card's metadata, as the Hub reads and checks it."""

import re
from typing import Any

import yaml

_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_METADATA = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


def metadata(card: str) -> Any:
    """What is between a card's first lines of dashes.

    Raises:
        yaml.YAMLError: no YAML.
    """
    match = _METADATA.match(card)
    return yaml.safe_load(match[1]) if match else {}


def metadata_faults(card: str) -> list[str]:
    """What the Hub refuses in a card's metadata: no YAML, and models and data sets that cannot be names on the Hub."""
    try:
        found = metadata(card)
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(found, dict):
        return ["metadata should be a mapping"]
    faults = []
    for name in ("base_model", "datasets"):
        values = found.get(name, [])
        for value in [values] if isinstance(values, str) else values:
            if not _MODEL_ID.fullmatch(value):
                faults.append(f'"{name}" with value "{value}" is not valid. Use an id from https://hf.co')
    return faults
