"""Fitting the emotion space of a model on a data set: shares, processes, streams; the adapter that is rewritten."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from accelerate import Accelerator
from safetensors import safe_open
from torch import Tensor, multiprocessing
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info
from training_world import write_emoset

from training import compute_emotion_space
from training.compute_emotion_space import EmotionSpaceArguments, collect, fit_emotion_space, share_of
from training.data import DataArguments
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter, write_adapter
from uniemo_pipelines.chain_uniemo import take_chain
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

COUNT = 29  # a prime: no number of processes and no batch divides it
SIZES = {"bank_size": 3, "rank": 2}
Item = dict[str, Tensor]


class Pictures(Dataset):
    """Random pictures, each emotion's around a colour of its own."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Item:
        generator, label = torch.Generator().manual_seed(index), index % 8
        pixels = torch.randn(3, 32, 32, generator=generator) + torch.randn(3, 1, 1, generator=generator) + label / 4
        return {"pixel_values": pixels, "labels": torch.tensor(label), "index": torch.tensor(index)}


class Stream(IterableDataset):
    """What one of several processes streams of them, in an order of its own, shared by its workers."""

    def __init__(self, process: int, processes: int) -> None:
        self.indices = range(process, COUNT, processes)[::-1]

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        mine = self.indices[worker.id :: worker.num_workers] if worker else self.indices
        return (Pictures()[index] for index in mine)


@pytest.fixture(scope="module")
def understanding() -> UniEmoUnderstandingModel:
    return tiny.understanding()


@pytest.fixture(scope="module")
def expected(understanding: UniEmoUnderstandingModel) -> dict[str, Tensor]:
    """By one process, one picture after another."""
    return fit_emotion_space(Accelerator(), understanding, Pictures(), 1, **SIZES)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def shares(understanding: UniEmoUnderstandingModel, datasets: list[Dataset], workers: int = 0) -> dict[str, Tensor]:
    """The space of several processes' shares, merged."""
    loaders = [DataLoader(dataset, 7, num_workers=workers) for dataset in datasets]
    first, *others = [collect(Accelerator(), understanding, loader, seed=0) for loader in loaders]
    for other in others:
        first.merge(other)
    assert first.moments.count.sum() == COUNT
    return first.fit(**SIZES)


def test_the_moments_are_those_of_the_models_features(understanding, expected):
    batch = default_collate([*map(Pictures().__getitem__, range(COUNT))])
    with torch.no_grad():
        output = understanding(batch["pixel_values"])
    features = torch.stack([output.emotion_features, output.scene_features, output.object_features], 1)
    for emotion in range(8):
        rows = features[batch["labels"] == emotion]
        torch.testing.assert_close(expected["mean"][emotion], rows.mean(0), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(expected["std"][emotion], rows.std(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("processes", [2, 3, COUNT + 2])
def test_shares_of_any_number_of_processes_count_each_picture_once(understanding, expected, processes):
    datasets = [share_of(Pictures(), process, processes) for process in range(processes)]
    assert_same(shares(understanding, datasets), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_read_as_it_was_shared_out(understanding, expected, workers):
    datasets = [share_of(Stream(process, 2), process, 2) for process in range(2)]
    assert_same(shares(understanding, datasets, workers), expected)


def test_the_model_is_run_in_evaluation_mode_and_left_as_it_was(understanding):
    understanding.train()
    try:
        fit_emotion_space(Accelerator(), understanding, Pictures(), 16, **SIZES)
        assert understanding.training
    finally:
        understanding.eval()


def test_an_emotion_without_a_picture_is_named(understanding):
    few = torch.utils.data.Subset(Pictures(), range(7))
    with pytest.raises(ValueError, match="none of .*sadness"):
        fit_emotion_space(Accelerator(), understanding, few, 4, **SIZES)


# ---------------------------------------------------------------------------------------------------- the command


def arguments_of(root: Path, adapter: Path) -> tuple[DataArguments, EmotionSpaceArguments]:
    data = DataArguments(data=str(root / "emoset"))
    return data, EmotionSpaceArguments(adapter=str(adapter), batch_size=4, **SIZES)


def write_world(root: Path) -> Path:
    """Fifteen training pictures, for an odd number does not divide."""
    write_emoset(root / "emoset")
    split = root / "emoset" / "train.json"
    split.write_text(json.dumps(json.loads(split.read_text())[:15]))
    return root


def write_folder_adapter(folder: Path) -> Path:
    understanding = tiny.save_understanding(folder / "understanding")
    write_adapter(folder / ADAPTER_NAME, tiny.fusion(), "a base", understanding)
    return folder


def space_in(folder: Path) -> dict[str, Tensor]:
    fusion = read_adapter(folder / ADAPTER_NAME).fusion
    names = ("mean", "std", "bank", "bank_weights", "low_rank_factors", "low_rank_diagonal")
    return {name: fusion.state_dict()[name] for name in names}


def test_an_adapter_beside_its_model_keeps_all_but_the_space(tmp_path):
    root = write_world(tmp_path)
    folder = write_folder_adapter(root / "adapter")
    before = read_adapter(folder / ADAPTER_NAME)
    compute_emotion_space.main(*arguments_of(root, folder))
    after = read_adapter(folder / ADAPTER_NAME)
    assert (after.base_model, after.understanding) == ("a base", str(folder / "understanding"))
    with safe_open(folder / ADAPTER_NAME, framework="pt") as file:
        assert file.metadata()["understanding"] == "understanding", "the folder may be moved with its adapter"
    assert not torch.allclose(after.fusion.mean, before.fusion.mean)
    assert "fitted again on" in (folder / "README.md").read_text()
    for name in ("scene_base", "object_coefficients", "mappers.0.emotion.0.weight"):
        assert torch.equal(after.fusion.state_dict()[name], before.fusion.state_dict()[name])


def test_the_card_of_stage_two_stays(tmp_path):
    root = write_world(tmp_path)
    folder = write_folder_adapter(root / "adapter")
    for name in ("README.md", "results.json", "training.json"):
        (folder / name).write_text("stage 2")
    compute_emotion_space.main(*arguments_of(root, folder))
    assert {(folder / name).read_text() for name in ("README.md", "training.json")} == {"stage 2"}


@pytest.mark.parametrize("lora", [False, True])
def test_an_adapter_that_carries_its_chain_is_fitted_by_it_and_keeps_it(tmp_path, lora):
    root, clip = write_world(tmp_path), tiny.save_clip(tmp_path / "clip")
    settings = {"num_scene_queries": 2, "num_object_queries": 3, "classifier_hidden": tiny.TEXT_WIDTH}
    model = UniEmoUnderstandingModel.from_clip(clip, **settings)
    tiny.set_vocabulary(model)
    if lora:
        model.add_adapter(model.lora_config(2))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += 0.1 * (".lora_" in name)
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), "a base", take_chain(model, str(clip)))
    before = read_adapter(tmp_path / ADAPTER_NAME).chain
    compute_emotion_space.main(*arguments_of(root, tmp_path))
    after = read_adapter(tmp_path / ADAPTER_NAME).chain
    assert (after.clip, after.tower, after.configuration, after.lora) == (
        before.clip,
        before.tower,
        before.configuration,
        before.lora,
    )
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    pictures = compute_emotion_space.training_pictures(
        arguments_of(root, tmp_path)[0], read_adapter(tmp_path / ADAPTER_NAME)
    )
    assert_same(space_in(tmp_path), fit_emotion_space(Accelerator(), model.eval(), pictures, 5, **SIZES))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def one_of_two(rank: int, port: int, data: DataArguments, arguments: EmotionSpaceArguments) -> None:
    """The command as a launcher runs it, and the function on a data set and a stream."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(
        {name: str(value) for name, value in place.items()}, ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1"
    )
    torch.set_num_threads(1)
    compute_emotion_space.main(data, arguments)
    accelerator, understanding = Accelerator(), tiny.understanding()
    assert accelerator.num_processes == 2
    for name, pictures in (("pictures", Pictures()), ("stream", Stream(rank, 2))):
        space = fit_emotion_space(accelerator, understanding, pictures, 8, **SIZES)
        torch.save(space, Path(arguments.adapter, f"{name}-{rank}.pt"))
    accelerator.end_training()


@pytest.mark.slow
def test_two_processes_fit_what_one_fits(tmp_path, expected):
    root = write_world(tmp_path)
    one, two = (write_folder_adapter(root / name) for name in ("one", "two"))
    multiprocessing.spawn(one_of_two, (free_port(), *arguments_of(root, two)), nprocs=2)
    compute_emotion_space.main(*arguments_of(root, one))
    assert_same(space_in(two), space_in(one))
    for name in ("pictures", "stream"):
        first, second = (torch.load(two / f"{name}-{rank}.pt") for rank in range(2))
        assert_same(first, expected)
        assert all(torch.equal(first[part], second[part]) for part in first)
