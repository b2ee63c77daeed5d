"""Arguments from files and flags."""

from dataclasses import dataclass

import pytest

from training.config import RunArguments, parse
from training.data import DataArguments


@dataclass(kw_only=True)
class Arguments:
    clip: str
    templates: list[str]


ALL = (DataArguments, Arguments, RunArguments)


CONFIG = """
common: {data: emoset, seed: 3, keep_images: true, base: for-another-script}
mine:
  {clip: a clip, output_dir: out, num_train_epochs: 2, per_device_train_batch_size: 4,
   templates: ["<emotion> {scene}", "<emotion>"]}
"""


def test_arguments_come_from_the_file_and_flags_win(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    data, arguments, run = parse(ALL, "mine", ["--config", str(tmp_path / "config.yaml"), "--num_train_epochs", "7"])
    assert (run.num_train_epochs, run.per_device_train_batch_size, run.seed, data.keep_images) == (7, 4, 3, True)
    assert arguments.templates == ["<emotion> {scene}", "<emotion>"] and arguments.clip == "a clip"


@pytest.mark.parametrize(
    ("right", "mistaken", "named"),
    [("clip: a clip, ", "", "--clip"), ("epochs", "ebochs", "--num_train_ebochs"), ("seed: 3", "seed: x", "--seed")],
)
def test_a_missing_unknown_or_mistyped_argument_is_named(tmp_path, capsys, right, mistaken, named):
    (tmp_path / "config.yaml").write_text(CONFIG.replace(right, mistaken))
    with pytest.raises(SystemExit):
        parse(ALL, "mine", ["--config", str(tmp_path / "config.yaml"), "--logging_steps", "4"])
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_a_section_that_is_not_there_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(ValueError, match="expected a section 'yours', found common, mine"):
        parse(Arguments, "yours", ["--config", str(tmp_path / "config.yaml")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, "by group"),
        ({"weight_decay": 0.1}, "by group"),
        ({"hub_strategy": "every_save"}, "at the end"),
        ({"resume_from_checkpoint": "somewhere"}, "same command again"),
    ],
)
def test_arguments_that_would_do_nothing_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"--{next(iter(changes))} is not used.*{message}"):
        RunArguments(output_dir=str(tmp_path), **changes)
