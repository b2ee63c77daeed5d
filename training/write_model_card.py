"""The embedded model's card at the top level: what `uniemo export` writes of it, above what was written by hand.

    python -m training.write_model_card

Above the line `BY_HAND` everything is made from `uniemo_pipelines/mini`, by `uniemo_pipelines.cards_uniemo`; what is
below it stays.
"""

from pathlib import Path

from uniemo_pipelines import embedded
from uniemo_pipelines.card_texts_uniemo import PIPELINE
from uniemo_pipelines.cards_uniemo import make_card
from uniemo_pipelines.training_records_uniemo import CONTACT_SHEET

ROOT = Path(__file__).parents[1]
MODEL_CARD = ROOT / "model_card.md"
NAME = "you/uniemo-mini"
BY_HAND = "<!-- Made by `python -m training.write_model_card` above this line; written by hand below it. -->"


def with_card(text: str) -> str:
    """The model card with its upper part made again, and what is below the line as it was.

    Raises:
        ValueError: there is no such line.
    """
    _, line, by_hand = text.partition(BY_HAND)
    if not line:
        raise ValueError(f"{MODEL_CARD.name}: expected the line '{BY_HAND}', found none; put it above what stays.")
    place = (embedded.FOLDER / CONTACT_SHEET).relative_to(ROOT).as_posix()
    card = str(make_card(embedded.FOLDER, NAME, PIPELINE)).replace(f"]({CONTACT_SHEET})", f"]({place})")
    return f"{card}\n{BY_HAND}{by_hand}"


def main() -> None:
    """Write it."""
    MODEL_CARD.write_text(with_card(MODEL_CARD.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
