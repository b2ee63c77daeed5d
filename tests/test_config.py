"""Arguments from files and flags."""

from dataclasses import dataclass

import pytest

from training.config import LoopArguments, parse


@dataclass(kw_only=True)
class Arguments(LoopArguments):
    clip: str
    templates: list[str]


CONFIG = """
common: {data: emoset, seed: 3, keep_images: true, base: for-another-script}
mine: {clip: a clip, output: out, epochs: 2, batch_size: 4, templates: ["<emotion> {scene}", "<emotion>"]}
"""


def test_arguments_come_from_the_file_and_flags_win(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    arguments = parse(Arguments, "mine", ["--config", str(tmp_path / "config.yaml"), "--epochs", "7"])
    assert (arguments.epochs, arguments.batch_size, arguments.seed, arguments.keep_images) == (7, 4, 3, True)
    assert arguments.templates == ["<emotion> {scene}", "<emotion>"] and arguments.clip == "a clip"


@pytest.mark.parametrize(
    ("right", "mistaken", "named"),
    [("clip: a clip, ", "", "--clip"), ("batch_size", "batch_sice", "--batch_sice"), ("seed: 3", "seed: x", "--seed")],
)
def test_a_missing_unknown_or_mistyped_argument_is_named(tmp_path, capsys, right, mistaken, named):
    (tmp_path / "config.yaml").write_text(CONFIG.replace(right, mistaken))
    with pytest.raises(SystemExit):
        parse(Arguments, "mine", ["--config", str(tmp_path / "config.yaml"), "--batch_size", "4"])
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_a_section_that_is_not_there_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(ValueError, match="expected a section 'yours', found common, mine"):
        parse(Arguments, "yours", ["--config", str(tmp_path / "config.yaml")])
