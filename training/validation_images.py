"""Pictures during stage 2: what the condition of a validation picture draws, beside the picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN

from .data import EmotionDataset
from .joint_model import JointModel


class ValidationImages(TrainerCallback):
    """Every `every` steps a sheet of two rows, a column an emotion: real pictures above, drawn ones below.

    The sheets go to `folder`, and to TensorBoard or Weights & Biases where they are used. Noise is the same each time,
    so that only the training shows.

    Args:
        base: the pipeline whose parts are in the model that is trained.
        pictures: the validation split as the understanding model sees it; its first of each emotion is taken.
        callbacks: the trainer's, for its trackers.
        folder: where the sheets are written.
        every: steps.
        guidance: guidance scale.
        seed: of the noise.
    """

    def __init__(
        self,
        base: StableDiffusionPipeline,
        pictures: EmotionDataset,
        callbacks: Sequence[TrainerCallback],
        folder: Path,
        every: int,
        guidance: float,
        seed: int,
    ) -> None:
        self.base, self.folder, self.every, self.guidance, self.seed = base, folder, every, guidance, seed
        self.callbacks = callbacks
        self.chosen = [pictures.labels.index(label) for label in range(len(EMOTIONS)) if label in pictures.labels]
        self.pictures = pictures

    def on_step_end(self, args: Any, state: Any, control: Any, model: JointModel, **kwargs: Any) -> None:
        if state.global_step % self.every or not state.is_world_process_zero:
            return
        sheet = self.sheet(model)
        self.folder.mkdir(parents=True, exist_ok=True)
        sheet.save(self.folder / f"step-{state.global_step}.jpg", quality=92)
        for callback in self.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_image("validation", np.asarray(sheet), state.global_step, dataformats="HWC")
            elif isinstance(callback, WandbCallback):
                callback._wandb.log(
                    {"validation": callback._wandb.Image(sheet), "train/global_step": state.global_step}
                )

    @torch.no_grad()
    def sheet(self, model: JointModel) -> Image.Image:
        """Real pictures above, what their conditions draw below."""
        samples = [self.pictures[index] for index in self.chosen]
        device = model.unet.device
        condition = model.condition(
            torch.stack([sample["pixel_values"] for sample in samples]).to(device),
            torch.stack([sample["labels"] for sample in samples]).to(device),
        )[0]
        self.base.set_progress_bar_config(disable=True)
        drawn = self.base(
            prompt_embeds=model.encode_prompts([SLOT_TOKEN] * len(samples), condition),
            negative_prompt_embeds=model.encode_prompts([""] * len(samples), condition),
            guidance_scale=self.guidance,
            num_inference_steps=25,
            generator=[torch.Generator().manual_seed(self.seed + index) for index in self.chosen],
        ).images
        real = [self.pictures.image(index).resize(drawn[0].size) for index in self.chosen]
        rows = [np.concatenate([np.asarray(image) for image in row], axis=1) for row in (real, drawn)]
        return Image.fromarray(np.concatenate(rows))
