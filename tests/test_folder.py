import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pyarrow import parquet
from transformers import CLIPImageProcessorPil
from typer.testing import CliRunner

from uniemo_pipelines import EMOTIONS
from uniemo_pipelines.cli import app
from uniemo_pipelines.folder_prediction import find_pictures
from uniemo_pipelines.prediction_table import PredictionTable
from uniemo_pipelines.understanding_uniemo import pixel_values, understand_pixels

NAMES = ["a.jpg", "b, 2.png", "deep/c.JPG", "deep/d.webp", "e.bmp", "f.tiff", "g.gif"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.save_understanding(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Seven pictures of as many kinds and shapes, and what is none."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(NAMES):
        noise = random.integers(0, 256, (40 + 30 * index, 220 - 25 * index, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "._a.jpg").write_text("what another system left")
    return folder


@pytest.fixture
def understand(model, tmp_path, monkeypatch):
    """Runs `uniemo understand` in an empty folder, with the tiny model."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, ["understand", *map(str, arguments), "--model", str(model)])

    return run


def read(table: Path) -> list[dict[str, str | float]]:
    if table.suffix == ".parquet":
        return parquet.read_table(table).to_pylist()
    with open(table, encoding="utf-8", newline="") as file:
        if table.suffix == ".jsonl":
            return [json.loads(line) for line in file]
        text = {"file", "emotion", *(f"{kind}_{rank}" for kind in ("scene", "object") for rank in (1, 2, 3))}
        return [{name: v if name in text else float(v) for name, v in row.items()} for row in csv.DictReader(file)]


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"pictures"}


def test_a_folder_becomes_the_same_table_in_every_format(understand, pictures, tmp_path):
    tables = [tmp_path / f"table.{suffix}" for suffix in ("parquet", "csv", "jsonl")]
    for table in tables:
        result = understand("pictures", "--out", table, "--batch-size", "3")
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(table) and "7 images" in result.stderr
    assert left_over(tmp_path) == {table.name for table in tables}
    rows, *others = map(read, tables)
    assert rows == others[0] == others[1]
    assert [row["file"] for row in rows] == NAMES
    assert list(rows[0]) == [
        *("file", "emotion", *EMOTIONS, "positive", "negative"),
        *("scene_1", "scene_1_score", "scene_2", "scene_2_score", "scene_3", "scene_3_score"),
        *("object_1", "object_1_score", "object_2", "object_2_score"),  # the tiny model knows two
    ]


def test_a_row_says_what_is_said_of_the_photo_alone(understand, pictures, tmp_path):
    assert understand("pictures", "--out", "table.jsonl").exit_code == 0
    for row in read(tmp_path / "table.jsonl"):
        [alone] = json.loads(understand(pictures / row["file"], "--json").stdout)
        assert row["emotion"] == alone["emotion"]
        assert {name: row[name] for name in EMOTIONS} == pytest.approx(alone["probabilities"], abs=1e-5)
        assert {name: row[name] for name in alone["polarity"]} == pytest.approx(alone["polarity"], abs=1e-5)
        for kind in ("scene", "object"):
            for rank, nearest in enumerate(alone[f"{kind}s"], start=1):
                assert row[f"{kind}_{rank}"] == nearest["name"]
                assert row[f"{kind}_{rank}_score"] == pytest.approx(nearest["score"], abs=1e-5)


def test_bad_files_are_listed_and_the_rest_is_complete(understand, pictures, tmp_path):
    whole = (pictures / "a.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "diary.png").write_text("dear diary")
    result = understand("pictures", "--out", "table.csv", "--batch-size", "2")
    assert result.exit_code == 1
    assert [row["file"] for row in read(tmp_path / "table.csv")] == NAMES
    *_, count, cut, diary = result.stderr.splitlines()
    assert count == "2 skipped:"
    assert "cut.jpg" in cut and "cut short" in cut
    assert "diary.png" in diary and "expected a picture" in diary
    assert left_over(tmp_path) == {"table.csv"}


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_name_that_no_table_holds_is_a_bad_file(understand, pictures, tmp_path):
    os.rename(pictures / "a.jpg", os.fsencode(pictures) + b"/\xff.jpg")
    assert understand("pictures", "--out", "table.parquet").exit_code == 1
    assert [row["file"] for row in read(tmp_path / "table.parquet")] == NAMES[1:]


def test_a_folder_of_nothing_readable_is_an_empty_table(understand, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/bad.jpg").write_text("dear diary")
    for name in ("table.parquet", "table.csv"):
        assert understand("pictures", "--out", name).exit_code == 1
        assert read(tmp_path / name) == []


KILLED = """
import os, signal
from uniemo_pipelines import prediction_table
from uniemo_pipelines.cli import main

add = prediction_table.PredictionTable.add

def add_and_die(table, rows):
    if len(table.done) >= 4:
        table._file.write(b'["half a li')
        os.kill(os.getpid(), signal.SIGKILL)
    add(table, rows)

prediction_table.PredictionTable.add = add_and_die
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_killed_run_goes_on_where_it_was(understand, pictures, model, tmp_path):
    arguments = ("pictures", "--out", "table.parquet", "--batch-size", "2")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, "understand", *arguments, "--model", str(model)]
    killed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert left_over(tmp_path) == {"table.parquet.journal"}
    shutil.move(pictures / "a.jpg", tmp_path / "a.jpg")  # were it read again, it would be missed
    resumed = understand(*arguments)
    assert resumed.exit_code == 0, resumed.output
    assert "3 images, 4 in an earlier run" in resumed.stderr
    assert left_over(tmp_path) == {"table.parquet", "a.jpg"}
    shutil.move(tmp_path / "a.jpg", pictures / "a.jpg")
    assert understand("pictures", "--out", "whole.parquet", "--batch-size", "2").exit_code == 0
    assert read(tmp_path / "table.parquet") == read(tmp_path / "whole.parquet")


def test_a_table_cut_anywhere_is_taken_up(tmp_path):
    rows = [["ä.jpg", 0.5], ["b\n.jpg", 1.0], ["c.jpg", 1e-9]]
    table = PredictionTable(tmp_path / "table.jsonl", {"model": "m"}, ["file", "awe"])
    table.add(rows)
    journal = table.journal.read_bytes()
    for length in range(len(journal) + 1):
        table.journal.write_bytes(journal[:length])
        again = PredictionTable(tmp_path / "table.jsonl", {"model": "m"}, ["file", "awe"])
        again.add([row for row in rows if row[0] not in again.done])
        again.finish()
        assert [list(row.values()) for row in read(tmp_path / "table.jsonl")] == rows


def test_rows_of_two_models_never_mix(understand, pictures, model, tmp_path, monkeypatch):
    shutil.copytree(model, tmp_path / "trained")
    trained = tiny.understanding()
    trained.classifier[-1].bias.data += 1e-3
    trained.save_pretrained(tmp_path / "trained")

    def stop(self: PredictionTable) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PredictionTable, "finish", stop)
        assert understand("pictures", "--out", "table.csv").exit_code == 130
    before = (tmp_path / "table.csv.journal").read_bytes()
    other = CliRunner().invoke(app, ["understand", "pictures", "--out", "table.csv", "--model", "trained"])
    monkeypatch.setattr("uniemo_pipelines.cli.__version__", "99")
    newer = understand("pictures", "--out", "table.csv")
    for result, word in ((other, "another model"), (newer, "another version")):
        assert result.exit_code == 2 and result.stdout == ""
        [line] = result.stderr.strip().splitlines()
        assert word in line and "table.csv.journal" in line and "delete" in line
    assert (tmp_path / "table.csv.journal").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pictures",), ("pictures is a folder", "--out")),
        (("pictures", "--json"), ("--out",)),
        (("pictures", "--json", "--out", "t.csv"), ("--json", "photos")),
        (("pictures", "--explain", "o.png", "--out", "t.csv"), ("--explain", "photos")),
        (("pictures", "pictures/a.jpg", "--out", "t.csv"), ("one folder",)),
        (("pictures/a.jpg", "--out", "t.csv"), ("a folder", "--json")),
        (("pictures", "--out", "t.xlsx"), (".parquet, .csv or .jsonl", ".xlsx")),
        (("pictures", "--out", "missing/t.csv"), ("no folder missing",)),
        (("pictures", "--out", "pictures"), ("found a folder",)),
        (("pictures/empty", "--out", "t.csv"), ("pictures/empty", "found none")),
        (("pictures", "--out", "t.csv", "--batch-size", "0"), ("--batch-size",)),
    ],
)
def test_bad_requests_are_refused_in_one_line(understand, pictures, tmp_path, arguments, words):
    (pictures / "empty").mkdir()
    result = understand(*arguments)
    assert result.exit_code == 2 and result.stdout == "", result.output
    [line] = result.stderr.strip().splitlines()
    assert all(word in line for word in words), line
    assert left_over(tmp_path) == set()


def test_a_missing_pyarrow_is_said_before_the_work(understand, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = understand("pictures", "--out", "table.parquet")
    assert result.exit_code == 2
    assert "uniemo-pipelines[parquet]" in result.stderr and left_over(tmp_path) == set()


def test_links_in_a_circle_are_not_followed(pictures):
    (pictures / "deep/again").symlink_to(pictures, target_is_directory=True)
    assert find_pictures(pictures) == NAMES


@pytest.mark.parametrize("size", [(90, 60), (61, 97), (64, 64), (20, 31)])
def test_large_pictures_are_scaled_to_the_processors_own_pixels(size):
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = processor(images=image, return_tensors="pt").pixel_values
    assert torch.equal(pixel_values(processor, [image]), expected)


def test_nan_is_told_from_a_broken_model():
    model = tiny.understanding()
    pixels = torch.zeros(2, 3, 32, 32)
    pixels[1, 0, 5, 5] = torch.nan
    with pytest.raises(ValueError, match="finite pixel_values"):
        model(pixels)
    model.classifier[-1].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="image 1 of 2"):
        understand_pixels(model, torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (1, 1, 32, 32), (3, 32, 32)])
def test_wrong_channels_are_named(shape):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), found \("):
        tiny.understanding()(torch.zeros(shape))
