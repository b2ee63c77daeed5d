"""Where the small model that travels with the package is; how it was made and what it can do is in model_card.md."""

from pathlib import Path

FOLDER = Path(__file__).parent / "mini"
STABLE_DIFFUSION = FOLDER / "stable-diffusion"
ADAPTER = FOLDER / "uniemo_adapter.safetensors"
UNDERSTANDING = FOLDER / "understanding"

GUIDANCE = 2.0
"""Guidance scale of the embedded model where none is given; chosen by `training.choose_sampling`."""


def existing(path: Path) -> str:
    """The path as text.

    Raises:
        ValueError: an installation without the model, such as a checkout in which it was not made yet. The adapter is
            made last: without it there is no model, whatever else is there.
    """
    if not (path.exists() and ADAPTER.is_file()):
        raise ValueError(f"the embedded model is missing at {path}: install the package again, or name another model.")
    return str(path)
