"""What a reproduction stands on and the package does not carry.

    python -m training.reproducing.components half_clip development_judge

Each is made once, in a folder of its own in `runs/mini`; the judges are those of `training.make_mini`. The CLIP is
not: the embedded model's knows the objects, and beside it nothing would be left for a method to teach.
"""

import sys
from pathlib import Path

from diffusers import AutoencoderKL
from transformers import CLIPModel

from uniemo_pipelines import embedded

from ..backbones.clip import train_clip, zero_shot
from ..backbones.corpus import make_corpus, render_chunk
from ..make_mini import JUDGES, RUNS, component, gate, make_judge
from ..miniemoset.streams import Stream
from ..scripts import errors_in_one_line

HALF_CLIP = "half_clip"
CORPUS_SIZE, CLIP_STEPS = 20_000, 520
LEAST_ZERO_SHOT = {"scene": 0.9, "object": 0.5}


def make_half_clip() -> None:
    """A CLIP that names scenes, and half of the objects, zero-shot."""
    pictures = render_chunk(Stream.GATES, 0, 2000)

    def knows_half(clip: CLIPModel) -> bool:
        return zero_shot(clip, *pictures)["object"] >= LEAST_ZERO_SHOT["object"]

    def make(folder: Path) -> None:
        corpus = make_corpus(RUNS / "half_corpus", CORPUS_SIZE, Stream.CORPUS)
        train_clip(corpus, folder, steps=CLIP_STEPS, enough=knows_half)

    folder = component(HALF_CLIP, make)
    gate(folder, "zero shot", lambda: zero_shot(CLIPModel.from_pretrained(folder), *pictures), LEAST_ZERO_SHOT)


def main(names: list[str]) -> None:
    """Make what is not there.

    Raises:
        ValueError: an unknown component.
    """
    known = [HALF_CLIP, *JUDGES]
    for name in names:
        if name == HALF_CLIP:
            make_half_clip()
        elif name in JUDGES:
            make_judge(name, AutoencoderKL.from_pretrained(embedded.STABLE_DIFFUSION / "vae"))
        else:
            raise ValueError(f"Expected one of {', '.join(known)}, found {name!r}.")


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
