"""Fit the emotion space on the training split and store it in an adapter (design 2.4).

    python -m training.compute_emotion_space --config training/configs/miniemoset.yaml

One pass over the pictures with the evaluation transform, in memory that does not grow with their number. Under
`accelerate launch` each process reads a share of the pictures by itself, and what they found is merged once at the
end: the same numbers on one process or many. `train_joint` does this at its end; run it alone after the understanding
model or the data has changed.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, tqdm
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from transformers import CLIPImageProcessorPil

from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, UniEmoAdapter, read_adapter, write_adapter
from uniemo_pipelines.loaders_uniemo import LoadedAdapter
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel
from uniemo_pipelines.training_records_uniemo import RESULTS

from .cards import changed_arguments
from .config import parse
from .data import DataArguments, EvaluationTransform, PictureSample, open_split
from .emotion_space import EmotionSpaceFit
from .publishing import Place
from .scripts import errors_in_one_line


@dataclass(kw_only=True)
class EmotionSpaceArguments:
    """Which adapter to fill, and how large the forms of its emotion space are."""

    adapter: str = field(metadata={"help": "folder that train_joint wrote; its adapter file is rewritten"})
    batch_size: int = field(default=64, metadata={"help": "pictures of one step on one process"})
    num_workers: int = field(default=0, metadata={"help": "processes that read pictures, for each that computes"})
    bank_size: int = field(default=64, metadata={"help": "medoids an emotion in the bank"})
    rank: int = field(default=16, metadata={"help": "factors of the low-rank form"})
    seed: int = field(default=0, metadata={"help": "decides the candidates for the bank and its start"})
    push_to_hub: bool = field(default=False, metadata={"help": "publish the folder afterwards"})
    hub_model_id: str | None = field(default=None, metadata={"help": "repository; named as the folder if not given"})
    hub_token: str | None = field(default=None, metadata={"help": "the stored one if not given"})
    hub_private_repo: bool | None = field(default=None, metadata={"help": "of a repository that is made"})


def fit_emotion_space(
    accelerator: Accelerator,
    understanding: UniEmoUnderstandingModel,
    pictures: Dataset,
    batch_size: int,
    bank_size: int = 64,
    rank: int = 16,
    seed: int = 0,
    num_workers: int = 0,
) -> dict[str, Tensor]:
    """All forms of the emotion space, as the arguments of `UniEmoFusionModel.set_emotion_space`.

    Args:
        accelerator: picks device and precision; every process ends with the same numbers.
        understanding: in whichever mode; it is run in evaluation mode.
        pictures: with the evaluation transform. An item has `pixel_values`, `labels` and `index`, by which the
            candidates for the bank are drawn. An iterable one gives this process its own share already.
        batch_size: pictures of one step on one process.
        bank_size, rank: sizes of the bank and of the low-rank form.
        seed: decides the candidates for the bank and its start.
        num_workers: processes that read pictures, for each that computes.

    Raises:
        ValueError: an emotion without a picture; features that are not finite.
    """
    share = share_of(pictures, accelerator.process_index, accelerator.num_processes)
    fit = collect(accelerator, understanding, DataLoader(share, batch_size, num_workers=num_workers), seed)
    return merged(accelerator, fit).fit(bank_size, rank)


def share_of(pictures: Dataset, process: int, processes: int) -> Dataset:
    """What one process reads: every picture falls to exactly one, so that none counts twice."""
    if isinstance(pictures, IterableDataset):
        return pictures
    return Subset(pictures, range(process, len(pictures), processes))


@torch.no_grad()
def collect(
    accelerator: Accelerator, understanding: UniEmoUnderstandingModel, loader: DataLoader, seed: int
) -> EmotionSpaceFit:
    """The features of one process's share, with no word to the others; the bar of the first one's share is shown."""
    training = understanding.training
    understanding.to(accelerator.device).eval()
    fit = EmotionSpaceFit(understanding.config.vision_config.hidden_size, seed=seed)
    for batch in tqdm(loader, desc="emotion space", unit="batch"):
        with accelerator.autocast():
            output = understanding(batch["pixel_values"].to(accelerator.device))
        features = torch.stack([output.emotion_features, output.scene_features, output.object_features], dim=1)
        fit.update(batch["labels"], features, batch["index"])
    understanding.train(training)
    return fit


def merged(accelerator: Accelerator, fit: EmotionSpaceFit) -> EmotionSpaceFit:
    """What all processes have collected, in the same order everywhere; one share at a time is in memory beside it."""
    whole = EmotionSpaceFit(fit.width, fit.candidates.limit, fit.seed)
    for process in range(accelerator.num_processes):
        [part] = broadcast_object_list([fit], from_process=process)
        whole.merge(part)
    return whole


def training_pictures(data: DataArguments, adapter: UniEmoAdapter) -> Dataset:
    """The training split as the adapter's understanding model sees it in use."""
    location = adapter.chain.clip if adapter.chain else adapter.understanding
    transform = EvaluationTransform(CLIPImageProcessorPil.from_pretrained(location))
    return open_split(data, data.train_split, PictureSample(transform))


def main(data: DataArguments, arguments: EmotionSpaceArguments) -> None:
    """Refit the emotion space of an adapter by its own understanding model, in the file or beside it.

    A folder that stage 2 has written keeps its card, which says how the rest was trained.
    """
    accelerator = Accelerator()
    place = Place(Path(arguments.adapter), arguments)
    path = Path(arguments.adapter, ADAPTER_NAME)
    adapter = read_adapter(path)
    space = fit_emotion_space(
        accelerator,
        LoadedAdapter(adapter).understanding_model(accelerator.device, torch.float32),
        training_pictures(data, adapter),
        arguments.batch_size,
        arguments.bank_size,
        arguments.rank,
        arguments.seed,
        arguments.num_workers,
    )
    adapter.fusion.set_emotion_space(**space)
    if accelerator.is_main_process:
        write_adapter(path, adapter.fusion, adapter.base_model, adapter.chain or adapter.understanding)
    if Path(arguments.adapter, RESULTS).is_file():
        place.push()
    else:
        changed = changed_arguments(data) | changed_arguments(arguments)
        place.fill("emotion_space", adapter.base_model, data.data, changed)


if __name__ == "__main__":
    with errors_in_one_line():
        main(*parse((DataArguments, EmotionSpaceArguments), "emotion_space"))
