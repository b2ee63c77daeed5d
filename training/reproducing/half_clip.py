"""The CLIP that a reproduction starts from: it names scenes, and half of the objects, zero-shot.

    python -m training.reproducing.half_clip

The embedded model's own CLIP knows nearly all, and beside it nothing would be left for a method to teach. Made once,
in `runs/mini/half_clip`.
"""

from pathlib import Path

from transformers import CLIPModel

from ..backbones.clip import train_clip, zero_shot
from ..backbones.corpus import make_corpus, render_chunk
from ..make_mini import RUNS, component, gate
from ..miniemoset.streams import Stream
from ..scripts import errors_in_one_line

HALF_CLIP = "half_clip"
CORPUS_SIZE, CLIP_STEPS = 20_000, 520
LEAST_ZERO_SHOT, MOST_OBJECTS = {"scene": 0.9, "object": 0.5}, 0.75


def main() -> None:
    """Make it if it is not there.

    Raises:
        SystemExit: it missed its gate, or knows so much that little is left to teach.
    """
    pictures = render_chunk(Stream.GATES, 0, 2000)

    def knows_half(clip: CLIPModel) -> bool:
        return zero_shot(clip, *pictures)["object"] >= LEAST_ZERO_SHOT["object"]

    def make(folder: Path) -> None:
        corpus = make_corpus(RUNS / "half_corpus", CORPUS_SIZE, Stream.CORPUS)
        train_clip(corpus, folder, steps=CLIP_STEPS, enough=knows_half)

    folder = component(HALF_CLIP, make)
    scores = gate(
        folder, "zero shot", lambda: zero_shot(CLIPModel.from_pretrained(folder), *pictures), LEAST_ZERO_SHOT
    )
    if (known := scores["object"]) > MOST_OBJECTS:
        raise SystemExit(
            f"{folder} knows more than half: expected at most {MOST_OBJECTS} of the objects, found {known:.3f}; "
            "remove it and lower CLIP_STEPS in training/reproducing/half_clip.py."
        )


if __name__ == "__main__":
    with errors_in_one_line():
        main()
