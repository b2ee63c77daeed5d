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


def test_a_section_that_is_not_there_is_named(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit):
        parse(Arguments, "yours", ["--config", str(tmp_path / "config.yaml")])
    assert "expected a section 'yours', found common, mine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "found none"), ("- 3", "found none"), ("mine: [", "expected YAML"), (None, "No such")],
)
def test_a_file_without_sections_is_one_line(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(SystemExit):
        parse(Arguments, "mine", ["--config", str(tmp_path / "config.yaml")])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "config.yaml" in line and message in line


def test_a_key_without_a_value_leaves_the_default(tmp_path):
    config = CONFIG.replace("seed: 3", "seed: ").replace("a clip,", "a clip, run_name: ,")
    (tmp_path / "config.yaml").write_text(config)
    _, _, run = parse(ALL, "mine", ["--config", str(tmp_path / "config.yaml")])
    assert run.seed == 0 and run.run_name is None


def test_arguments_that_are_refused_are_not_offered(capsys):
    with pytest.raises(SystemExit):
        parse(ALL, "mine", ["--help"])
    text = capsys.readouterr().out
    assert "--warmup_steps" in text and "--weight_decay" not in text and "--resume_from_checkpoint" not in text


def test_an_impossible_value_is_an_argument_error(capsys):
    with pytest.raises(SystemExit):
        parse(ALL, "mine", "--data d --clip c --templates t --output_dir o --learning_rate 1".split())
    assert "--learning_rate is not used here" in capsys.readouterr().err.splitlines()[-1]


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
