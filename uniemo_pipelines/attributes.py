"""Names of scenes and objects, and EmoSet's list of them."""

import json
import re
from pathlib import Path


def normalise(name: str) -> str:
    """The one spelling of an attribute: "bakery/shop" -> "bakery shop", "Alarm clock" -> "alarm clock"."""
    return re.sub(r"[\s_/]+", " ", name).strip().lower()


def read_names(info: Path) -> tuple[list[str], list[str]]:
    """Scenes and objects of EmoSet's `info.json` in the order of their labels, each in the file's own spelling.

    Raises:
        ValueError: the file is no JSON, or not of this form.
    """
    try:
        content = json.loads(info.read_text(encoding="utf-8"))
        maps = [content.get(kind, {}).get("label2idx", {}) for kind in ("scene", "object")]
        scenes, objects = (sorted(index, key=index.__getitem__) for index in maps)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{info}: expected EmoSet's label maps, found another file or a damaged one.") from None
    return scenes, objects
