"""How a script ends when something is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import CLIPModel

from training.data import DataArguments
from training.data.opening import find_layout
from training.scripts import errors_in_one_line


def test_an_error_of_ours_is_one_line(tmp_path):
    with (
        pytest.raises(SystemExit, match=f"FileNotFoundError: {tmp_path}: expected EmoSet's layout"),
        errors_in_one_line(),
    ):
        find_layout(DataArguments(data=str(tmp_path)))


def test_a_model_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit, match="OSError: .*nowhere"), errors_in_one_line():
        CLIPModel.from_pretrained(tmp_path / "nowhere")


def test_an_error_from_elsewhere_keeps_its_traceback():
    with pytest.raises(yaml.YAMLError), errors_in_one_line():
        yaml.safe_load("[")
    with pytest.raises(ValueError, match="time data"), errors_in_one_line():
        __import__("datetime").datetime.strptime("no date", "%Y")


def test_a_script_ends_with_the_line_alone(tmp_path):
    command = [
        sys.executable,
        "-m",
        "training.prepare",
        "--data",
        str(tmp_path),
        "--output",
        str(tmp_path / "prepared"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"FileNotFoundError: {tmp_path}: expected EmoSet's layout")
