"""Pickles that nobody vouches for are read without running anything that they name."""

import os
import pickle
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from uniemo_pipelines.pickles import read_pickle

EMOGEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "emogen"


class Act:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def legacy_save(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def dump(content, path, protocol):
    path.write_bytes(pickle.dumps(content, protocol))


WRITERS = {"torch": torch.save, "torch legacy": legacy_save} | {
    f"pickle {protocol}": lambda content, path, protocol=protocol: dump(content, path, protocol)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_pickle_that_would_act_is_refused_by_name(tmp_path, write):
    file, trace = tmp_path / "best.pth", tmp_path / "trace"
    write({"model": {"a": 1}, "config": Act(trace)}, file)
    with pytest.raises(ValueError, match=r"best\.pth: .* asks for \w+\.mkdir"):
        read_pickle(file)
    assert not trace.exists()


def test_the_pickle_of_these_tests_does_act(tmp_path):
    pickle.loads(pickle.dumps(Act(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_arrays_numbers_and_strings_arrive(tmp_path, write):
    content = {
        "array": np.arange(6.0, dtype=np.float32).reshape(2, 3),
        "scalar": np.float64(0.5),
        "names": ["a", "b"],
        "ordered": OrderedDict(a=(1, 2.5, None, True)),
        "integers": np.arange(3),
    }
    write(content, tmp_path / "file")
    found = read_pickle(tmp_path / "file")
    assert (found["array"] == content["array"]).all() and (found["integers"] == content["integers"]).all()
    rest = ("scalar", "names", "ordered")
    assert [found[key] for key in rest] == [content[key] for key in rest]


def test_numpy_1_and_2_name_their_modules_differently(tmp_path):
    modern = pickle.dumps(np.arange(3.0), protocol=2)
    core = b"numpy._core." if b"numpy._core." in modern else b"numpy.core."
    for other in (b"numpy._core.", b"numpy.core."):
        (tmp_path / "array.pkl").write_bytes(modern.replace(core, other))
        assert read_pickle(tmp_path / "array.pkl").tolist() == [0, 1, 2]


def test_a_checkpoints_settings_are_read(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "config": Namespace(seed=500)}, tmp_path / "best.pth")
    assert read_pickle(tmp_path / "best.pth")["model"]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_cut_short_is_named(tmp_path, write):
    file = tmp_path / "cut.pth"
    write({"a": np.arange(1000.0)}, file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.pth: .*cut short"):
        read_pickle(file)


@pytest.mark.parametrize("content", [b"", b"dear diary", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04"])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pth: expected"):
        read_pickle(tmp_path / "other.pth")


@pytest.mark.skipif(not EMOGEN.is_dir(), reason="EmoGen's pickles are not here")
def test_emogens_pickles_are_read():
    found = {file.stem: read_pickle(file) for file in EMOGEN.glob("*.pkl")}
    tables = [found[f"attr_coefficient_emotion_{kind}"] for kind in ("scene", "object")]
    assert [len(table) for table in tables] == [254, 409]
    assert all(row.shape == (8,) and abs(row.sum() - 1) < 1e-3 for table in tables for row in table.values())
    assert set(found["all_attribute_object_scene"]) == set(tables[0]) | set(tables[1])
    assert all(
        isinstance(name, str)
        for kind in ("scene", "object")
        for names in found[f"{kind}_attr"].values()
        for name in names
    )
