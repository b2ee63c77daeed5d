"""What a model card says of licences: of the weights, of their base, and of the data.

Only what is known for certain. Terms change: who publishes reads them where the card points.
"""

from collections.abc import Mapping

from .training_records_uniemo import hub_name

CONDITIONED_BASES: Mapping[str, str] = {
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
}
"""Bases whose licence asks that its restrictions of use go over to all that is made from them."""

_OWN_BASES = ("mini-stable-diffusion", "mini-clip")
"""Those of the embedded model."""

_DATA = {
    "miniemoset": "The data, MiniEmoSet: drawn by code of uniemo-pipelines, which is under `apache-2.0`.",
    "emoset": (
        "The data, [EmoSet](https://github.com/JingyuanYY/EmoSet): its authors name no licence in its repository; by "
        "its paper it has pictures from social networks and artistic ones. Ask before any use beyond research."
    ),
}


def license_of(chosen: str | None, base: str | None) -> str | None:
    """The metadata's licence: the author's choice, else that of a base whose goes over, else None."""
    return chosen or CONDITIONED_BASES.get(base or "")


def licence_lines(chosen: str | None, base: str | None, data: str | None) -> list[str]:
    """A line for the weights, one for the base, one for the data."""
    weights = license_of(chosen, base)
    lines = [f"These weights: `{weights}`." if weights else "These weights: their author has not named a licence."]
    return [*lines, _base_line(base), _data_line(data)]


def _base_line(base: str | None) -> str:
    if base in CONDITIONED_BASES:
        return (
            f"The base, [{base}](https://huggingface.co/{base}): `{CONDITIONED_BASES[base]}`. Its restrictions of use "
            "hold for these weights too, whatever else they are under."
        )
    if base in _OWN_BASES:
        return f"The base, `{base}`: `apache-2.0`; made by code of uniemo-pipelines."
    if hub_name(base):
        return f"The base, [{base}](https://huggingface.co/{base}): as its card says."
    return f"The base{f', `{base}`' if base else ''}: not known here. Its licence may hold for these weights too."


def _data_line(data: str | None) -> str:
    if hub_name(data):
        return f"The data, [{data}](https://huggingface.co/datasets/{data}): as their card says."
    name = (data or "").lower()
    known = next((line for start, line in _DATA.items() if name.startswith(start)), None)
    return known or f"The data{f', `{data}`' if data else ''}: not known here."
