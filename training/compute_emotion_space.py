"""Fit the emotion space on the training split and store it in an adapter (design 2.4).

    python -m training.compute_emotion_space --config training/configs/miniemoset.yaml

One pass over the pictures with the evaluation transform, in bounded memory. `train_joint` does this at its end; run it
alone after the understanding model or the data has changed.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessorPil

from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter, write_adapter
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from .config import parse
from .data import EmoSetDataset, EvaluationTransform
from .emotion_space import EmotionSpaceFit


@dataclass(kw_only=True)
class EmotionSpaceArguments:
    """Which adapter to fill, and how large the forms of its emotion space are."""

    data: str = field(metadata={"help": "folder in EmoSet's layout"})
    adapter: str = field(metadata={"help": "folder that train_joint wrote; its adapter file is rewritten"})
    batch_size: int = field(default=64, metadata={"help": "pictures of one step on one process"})
    bank_size: int = field(default=64, metadata={"help": "medoids an emotion in the bank"})
    rank: int = field(default=16, metadata={"help": "factors of the low-rank form"})
    seed: int = field(default=0, metadata={"help": "decides the candidates for the bank and its start"})


@torch.no_grad()
def fit_emotion_space(
    accelerator: Accelerator,
    understanding: UniEmoUnderstandingModel,
    pictures: EmoSetDataset,
    batch_size: int,
    bank_size: int = 64,
    rank: int = 16,
    seed: int = 0,
) -> dict[str, Tensor]:
    """All forms of the emotion space, as the arguments of `UniEmoFusionModel.set_emotion_space`.

    Args:
        accelerator: picks the device; every process ends with the same numbers.
        understanding: in whichever mode; it is run in evaluation mode.
        pictures: with the evaluation transform.
        batch_size: pictures of one step on one process.
        bank_size, rank: sizes of the bank and of the low-rank form.
        seed: decides the candidates for the bank and its start.
    """
    training = understanding.training
    understanding.to(accelerator.device).eval()
    fit = EmotionSpaceFit(understanding.config.vision_config.hidden_size, seed=seed)
    loader = accelerator.prepare(DataLoader(pictures, batch_size))
    for batch in tqdm(loader, desc="emotion space"):
        output = understanding(batch["pixel_values"])
        features = torch.stack([output.emotion_features, output.scene_features, output.object_features], dim=1)
        fit.update(*accelerator.gather_for_metrics((batch["labels"], features.float(), batch["index"])))
    understanding.train(training)
    return fit.fit(bank_size, rank)


def main(arguments: EmotionSpaceArguments) -> None:
    """Refit the emotion space of an adapter that lies beside its understanding model."""
    folder, understanding = Path(arguments.adapter), Path(arguments.adapter, "understanding")
    adapter = read_adapter(folder / ADAPTER_NAME)
    accelerator = Accelerator()
    space = fit_emotion_space(
        accelerator,
        UniEmoUnderstandingModel.from_pretrained(understanding),
        EmoSetDataset(
            arguments.data, "train", EvaluationTransform(CLIPImageProcessorPil.from_pretrained(understanding))
        ),
        arguments.batch_size,
        arguments.bank_size,
        arguments.rank,
        arguments.seed,
    )
    adapter.fusion.set_emotion_space(**space)
    if accelerator.is_main_process:
        write_adapter(folder / ADAPTER_NAME, adapter.fusion, adapter.base_model, understanding)


if __name__ == "__main__":
    main(parse(EmotionSpaceArguments, "emotion_space"))
