"""Is a model that filters the generator's own? They are told by their emotion heads, which stage 2 leaves alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..emotion_heads import head_of
from ..weights import name_of
from .corpus import Corpus
from .reading import Filter


@dataclass(frozen=True)
class Kinship:
    """A filtering model, and whether the generator was trained with its emotion head; None where that is not known."""

    model: str
    own: bool | None


def kinships(judges: Filter, corpus: Corpus) -> list[Kinship]:
    """Of each filtering model, in order."""
    found = []
    for location, model in zip(judges.locations, judges.models, strict=True):
        own = head_of(model.state_dict()) in corpus.emotion_heads if corpus.emotion_heads else None
        found.append(Kinship(name_of(location), own))
    return found


def warning(found: Sequence[Kinship]) -> str | None:
    """One line on self-filtering; None where there is none, or none is known of."""
    own = [one.model for one in found if one.own]
    if not own:
        return None
    return (
        f"Warning: filtered by its own model: {', '.join(own)} has the emotion head that the generator was trained to "
        "please; name a model of other pictures as --models, unless this is to compare with."
    )
