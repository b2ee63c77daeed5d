"""The rival of stage 2: a textual inversion for each emotion, one vector that stands for all of its pictures.

    python -m training.train_textual_inversion --config training/configs/miniemoset.yaml

The eight embeddings are all that is trained, each by the pictures of its emotion, from the embedding of the emotion's
own word (Gal et al. 2022). What stage 2 gains over it is the doing of conditions that differ from picture to picture.

The output folder has awe.safetensors and the others, for stock diffusers' `load_textual_inversion`.
"""

from dataclasses import dataclass, field
from functools import partial
from random import Random

import torch
from accelerate.utils import set_seed
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .config import RunArguments, parse
from .data import DataArguments, Picture, Row, open_split
from .engine import Batch, Losses, ParameterGroup, StageTrainer
from .prompted_diffusion import PromptedDiffusion, load_base
from .prompted_pictures import PromptArguments, in_prompts
from .publishing import carry_out
from .reports import final_losses
from .runs import Run
from .scripts import errors_in_one_line


@dataclass(kw_only=True)
class InversionArguments(PromptArguments):
    """Textual inversion; the default learning rate is diffusers' for it."""

    _argument_group_name = "textual inversion"

    embeddings_learning_rate: float = field(default=5e-4, metadata={"help": "of the eight embeddings"})
    min_snr_gamma: float | None = field(default=None, metadata={"help": "as in stage 2; none if not given"})


class InversionModel(PromptedDiffusion):
    """A frozen Stable Diffusion with an embedding (8, D) for each emotion."""

    def __init__(
        self, base: StableDiffusionPipeline, vae: AutoencoderKL | None = None, min_snr_gamma: float | None = None
    ) -> None:
        super().__init__(base, vae, min_snr_gamma)
        self.requires_grad_(False)
        self.embeddings = nn.Parameter(word_embeddings(base))

    def forward(self, batch: Batch) -> Losses:
        """The diffusion loss of a batch of `PromptedSample`s."""
        condition = self.embeddings[batch["labels"]]
        return {
            "loss": self.diffusion_loss(condition, self.latents(batch), batch),
            "condition_norm": self.relative_norm(condition).detach().mean(),
        }


@torch.no_grad()
def word_embeddings(base: StableDiffusionPipeline) -> Tensor:
    """The emotions' words in the text encoder's input embeddings, (8, D) float32; the mean of a word's tokens."""
    words = base.tokenizer(list(EMOTIONS), add_special_tokens=False).input_ids
    table = base.text_encoder.get_input_embeddings().weight.float()
    return torch.stack([table[tokens].mean(0) for tokens in words])


def label_alone(row: Row, picture: Picture, source: Random) -> dict[str, Tensor]:
    """A sample that does not look at its picture: the latents do."""
    return {"index": torch.tensor(row.index), "labels": torch.tensor(row.label)}


def losses_of(model: InversionModel, batch: Batch) -> Losses:
    """The loss."""
    return model(batch)


def train(run: Run, data: DataArguments, arguments: InversionArguments, training: RunArguments) -> None:
    """Train from the run's last checkpoint, and write the embeddings and the results."""
    set_seed(training.seed)
    base = load_base(arguments.base, training)
    pictures = open_split(data, data.train_split, label_alone, training.seed)
    drawn = in_prompts(pictures, base, arguments, training.device)
    model = InversionModel(base, None if arguments.latents else base.vae, arguments.min_snr_gamma)
    groups = [ParameterGroup(("embeddings",), arguments.embeddings_learning_rate, weight_decay=1e-2)]
    trainer = StageTrainer(model, training, groups, losses_of, drawn, balanced=data.class_balanced)
    trainer.train(resume_from_checkpoint=run.last_checkpoint())
    if training.should_save:
        for emotion, embedding in zip(EMOTIONS, model.embeddings.detach().cpu(), strict=True):
            save_file({f"<{emotion}>": embedding[None].contiguous()}, run.folder / f"{emotion}.safetensors")
        run.finish(final_losses(trainer.state.log_history, data.train_split), trainer.state.log_history)


def main(data: DataArguments, arguments: InversionArguments, training: RunArguments) -> None:
    """Train, and publish what was trained if that is asked for."""
    work = partial(train, data=data, arguments=arguments, training=training)
    carry_out("textual_inversion", arguments.base, data, arguments, training, work)


if __name__ == "__main__":
    with errors_in_one_line():
        main(*parse((DataArguments, InversionArguments, RunArguments), "textual_inversion"))
