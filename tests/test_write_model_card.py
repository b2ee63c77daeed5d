"""model_card.md is the embedded model's card above what is written by hand."""

import re

import pytest

from training.write_model_card import BY_HAND, MODEL_CARD, NAME, with_card
from uniemo_pipelines import embedded
from uniemo_pipelines.exporting import export_pipeline


def test_the_upper_part_is_made_from_the_data_of_today():
    text = MODEL_CARD.read_text(encoding="utf-8")
    assert with_card(text) == text, "stale: run python -m training.write_model_card"


@pytest.mark.slow
def test_it_is_the_card_that_is_exported_with_the_embedded_model(tmp_path):
    export_pipeline(tmp_path / "whole", str(embedded.STABLE_DIFFUSION), str(embedded.ADAPTER), NAME)
    exported = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    upper = MODEL_CARD.read_text(encoding="utf-8").partition(BY_HAND)[0]
    assert (
        upper.replace("(uniemo_pipelines/mini/contact_sheet.jpg)", "(contact_sheet.jpg)").rstrip() == exported.rstrip()
    )
    assert (tmp_path / "whole" / "contact_sheet.jpg").is_file()


def test_what_is_written_by_hand_stays():
    text = MODEL_CARD.read_text(encoding="utf-8")
    changed = text.replace("uniemo-mini", "another", 1) + "\nMore.\n"
    assert with_card(changed) == f"{text}\nMore.\n"
    with pytest.raises(ValueError, match="expected the line"):
        with_card(text.replace(BY_HAND, ""))


def test_pictures_that_it_shows_are_there():
    for place in re.findall(r"!\[.*?\]\((.*?)\)", MODEL_CARD.read_text(encoding="utf-8")):
        assert (MODEL_CARD.parent / place).is_file(), place
