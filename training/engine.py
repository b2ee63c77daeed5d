"""Hugging Face's Trainer with what UniEmo's stages need beside it.

- Learning rates and weight decays by groups of parameters.
- Losses by part, in the log, the progress bar and the trackers.
- A loss that is not finite stops the run and names the pictures.
- Checkpoints hold what is trained and nothing that is frozen, are whole or not used, and keep within a limit on disk.
- The order of pictures and everything random about them is a function of seed, epoch and picture, so that a run that
  was killed goes on as if nothing had been, and the split over processes does not matter.
"""

import copy
import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, tqdm
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import EvalPrediction, ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import SAFE_WEIGHTS_NAME

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .config import RunArguments
from .data import EmotionDataset, EmotionStream, EpochSampler
from .distributed import mean_over_processes
from .runs import WHOLE

Batch = dict[str, Tensor]
Losses = Mapping[str, Tensor]

MOST_NAMED = 8
"""Pictures of a batch, or weights, that a message names."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters whose names start with one of `prefixes`, their learning rate and weight decay."""

    prefixes: tuple[str, ...]
    learning_rate: float
    weight_decay: float


def grouped_parameters(model: nn.Module, groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """An optimizer's parameter groups; no weight decay on biases and one-dimensional parameters, as published.

    Raises:
        ValueError: a trainable parameter belongs to no group, or a group has no parameters.
    """
    left = trained_parameters(model)
    options = []
    for group in groups:
        mine = [left.pop(name) for name in list(left) if name.startswith(group.prefixes)]
        if not mine:
            raise ValueError(f"No trainable parameter is named {' or '.join(group.prefixes)}...")
        for decayed in (True, False):
            parameters = [parameter for parameter in mine if (parameter.ndim > 1) == decayed]
            decay = group.weight_decay if decayed else 0.0
            options.append({"params": parameters, "lr": group.learning_rate, "weight_decay": decay})
    if left:
        raise ValueError(f"Trainable parameters in no group: {', '.join(left)}.")
    return [option for option in options if option["params"]]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By their names in the bare model, whatever wraps it."""
    wrappers = ("module.", "_fsdp_wrapped_module.", "_orig_mod.")
    named = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for wrapper in wrappers:
                name = name.replace(wrapper, "") if wrapper != "module." else name.removeprefix(wrapper)
            named[name] = parameter
    return named


class StageTrainer(Trainer):
    """Trains one stage.

    Args:
        model: the model; what it shall not learn is frozen.
        args: the run's arguments.
        groups: learning rates and weight decays.
        losses_of: (model, batch) to the losses by part; "loss" is the one that is minimised.
        train_dataset: items have their `index`.
        eval_dataset: where validation selects; `classify` is then given.
        classify: (model, batch) to logits (B, 8).
        balanced: draw every emotion equally often.
        generated_share: at most this share of an epoch is generated.

    Raises:
        ValueError: an emotion without a picture, a batch larger than the data, or no room for the checkpoints.

    Raises (from `train`):
        FloatingPointError: a loss or a trained weight is not finite.
        OSError: a checkpoint cannot be written; what was there before stays.
    """

    def __init__(
        self,
        model: nn.Module,
        args: RunArguments,
        groups: Sequence[ParameterGroup],
        losses_of: Callable[[nn.Module, Batch], Losses],
        train_dataset: EmotionDataset | EmotionStream,
        eval_dataset: EmotionDataset | EmotionStream | None = None,
        classify: Callable[[nn.Module, Batch], Tensor] | None = None,
        balanced: bool = False,
        generated_share: float = 0.5,
    ) -> None:
        _check_pictures(args, train_dataset)
        self.groups, self.losses_of, self.classify = groups, losses_of, classify
        self.balanced, self.generated_share = balanced, generated_share
        self._parts: dict[str, Tensor] = {}
        self._batches = 0
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_metrics=accuracy,
        )
        self.model_accepts_loss_kwargs = False  # losses are means; the Trainer divides them where it accumulates
        self._whole = model
        if self.is_fsdp_enabled:
            self._whole = copy.deepcopy(model)
            _widen_scalars(model)
        if self.pop_callback(ProgressCallback):
            self.add_callback(Progress)
        self._limit_checkpoints(self._expected_checkpoint_size())

    def whole_model(self) -> nn.Module:
        """The model with the weights that it has now, on every process, also where FSDP keeps them in pieces."""
        if self.is_fsdp_enabled:
            [state] = broadcast_object_list([self.accelerator.get_state_dict(self.model_wrapped)])
            shapes = {name: value.shape for name, value in self._whole.state_dict().items()}
            self._whole.load_state_dict({name: state[name].reshape(shape) for name, shape in shapes.items()})
        return self._whole

    # -- what is trained, and on what

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = kind(grouped_parameters(model or self.model, self.groups), **options)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: EmotionDataset | None = None) -> EpochSampler:
        return EpochSampler(self.train_dataset, self.args.seed, self.balanced, self.generated_share)

    def get_train_dataloader(self) -> DataLoader:
        if isinstance(self.train_dataset, EmotionStream):
            # not prepared by accelerate, which would take a share of this process's share
            stream = Endless(self.train_dataset)
            return DataLoader(stream, self.args.train_batch_size, num_workers=self.args.dataloader_num_workers)
        loader = super().get_train_dataloader()
        # or the workers' seed is drawn from what dropout draws from: once where they persist, and so not on resume
        loader.base_dataloader.generator = torch.Generator()
        return loader

    def get_eval_dataloader(self, eval_dataset: EmotionDataset | EmotionStream | None = None) -> DataLoader:
        # every picture once, where the Trainer would leave out the last ones as it does in training; accelerate shares
        # them out, of a stream too
        loader = DataLoader(
            eval_dataset or self.eval_dataset,
            self.args.eval_batch_size,
            num_workers=self.args.dataloader_num_workers,
        )
        return self.accelerator.prepare(loader)

    # -- losses

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        pictures = inputs.pop("index")
        losses = self.losses_of(model, inputs)
        self._check_finite(losses, pictures)
        for name, value in losses.items():
            self._parts[name] = self._parts.get(name, 0) + value.detach().float()
        self._batches += 1
        return losses["loss"]

    def _check_finite(self, losses: Losses, pictures: Tensor) -> None:
        if torch.stack([value.detach().float() for value in losses.values()]).isfinite().all():
            return
        found = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
        names = list(map(self.train_dataset.name, pictures.tolist()))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise FloatingPointError(
            f"Step {self.state.global_step + 1}: expected finite losses, found {found} for the pictures "
            f"{', '.join(names[:MOST_NAMED])}{more}. The last checkpoint is kept; look at the pictures, or lower the "
            "learning rates."
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the losses by part, means since the last record and over processes."""
        if "loss" in logs and self._batches:
            values = mean_over_processes(torch.stack(list(self._parts.values())) / self._batches)
            logs |= {name: value for name, value in zip(self._parts, values.tolist(), strict=True) if name != "loss"}
            self._parts, self._batches = {}, 0
        super().log(logs, start_time)

    # -- validation

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, Tensor, Tensor]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            return None, self.classify(model, inputs), inputs["labels"]

    # -- checkpoints

    def train(self, *args: Any, **options: Any) -> Any:
        output = super().train(*args, **options)
        self._check_weights(self.model)  # also where no checkpoint was asked for
        return output

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        found = super()._init_training_state(*args)
        if self.state.best_global_step:  # its path was another one if the run was moved
            best = Path(self.args.output_dir, f"checkpoint-{self.state.best_global_step}")
            self.state.best_model_checkpoint = str(best)
        return found

    def _check_weights(self, model: nn.Module) -> None:
        broken = [name for name, value in trained_parameters(model).items() if not value.isfinite().all()]
        if broken:
            raise FloatingPointError(
                f"Step {self.state.global_step}: expected finite weights, found others in "
                f"{', '.join(broken[:MOST_NAMED])}. The last checkpoint is kept; lower the learning rates, or "
                "--max_grad_norm."
            )

    def _save_checkpoint(self, model: nn.Module, trial: None) -> None:
        self._check_weights(model)
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        kept, self.args.save_total_limit = self.args.save_total_limit, None  # none goes before this one is whole
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk, as each of the writers puts it
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(
                f"{folder} could not be written ({error}). The checkpoints before it are whole; make room if the disk "
                "is full, and run the same command again to go on from the last."
            ) from error
        finally:
            self.args.save_total_limit = kept
        self.accelerator.wait_for_everyone()  # every process has written its part
        if self.args.should_save:
            (folder / WHOLE).touch()
            rotate_checkpoints(self.args.output_dir, kept, self.state.best_model_checkpoint)
            self._limit_checkpoints(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            state = state_dict or self.model.state_dict()
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            kept = {name: state[name].contiguous() for name in trained_parameters(self.model)}
            save_file(kept, Path(output_dir, SAFE_WEIGHTS_NAME), metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        weights = load_file(Path(resume_from_checkpoint, SAFE_WEIGHTS_NAME))
        if weights.keys() != (expected := trained_parameters(self.model).keys()):
            raise ValueError(
                f"{resume_from_checkpoint}: expected the weights of what is trained, found others: "
                f"{', '.join(sorted(weights.keys() ^ expected))}."
            )
        self.model.load_state_dict(weights, strict=False)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _expected_checkpoint_size(self) -> int:
        """Bytes of the trained weights and AdamW's two moments of each; what else there is counts little."""
        return (
            3 * sum(value.numel() * value.element_size() for value in trained_parameters(self.model).values()) + 10**5
        )

    def _limit_checkpoints(self, size: int) -> None:
        """Keep as many checkpoints of `size` bytes as the limit has room for, beside the one that is being written.

        Raises:
            ValueError: there is no room for those that have to be there at once.
        """
        if self.args.checkpoints_limit_gb is None:
            return
        needed = 3 if self.args.load_best_model_at_end else 2  # the best, the last, the one being written
        room = math.floor(self.args.checkpoints_limit_gb * 1e9 / size)
        if room < needed:
            raise ValueError(
                f"Expected --checkpoints_limit_gb of at least {needed * size / 1e9:.3g}, for {needed} checkpoints of "
                f"{size / 1e9:.3g} GB are there at once; found {self.args.checkpoints_limit_gb:g}."
            )
        self.args.save_total_limit = min(room - 1, self.args.save_total_limit or room)


class Endless(IterableDataset):
    """A stream epoch after epoch, so that no process waits for another whose share is longer."""

    def __init__(self, stream: EmotionStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Batch]:
        for epoch in itertools.count():
            self.stream.set_epoch(epoch)
            empty = True
            for sample in self.stream:
                empty = False
                yield sample
            if empty:
                raise ValueError(
                    "Expected pictures for each process and worker of the stream, found one without; its files are "
                    "shared out whole: lower --dataloader_num_workers."
                )


class Progress(TrainerCallback):
    """A bar with rate, time left and the losses by part, and one below it while a split is read; validation figures
    stay on lines of their own."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.reading: tqdm | None = None

    def on_train_begin(self, args: RunArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(self, args: RunArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: RunArguments, state: Any, control: Any, logs: Mapping[str, float], **kwargs: Any) -> None:
        if self.bar is None:
            return
        hidden = ("epoch", "grad_norm", "learning_rate")
        if "loss" in logs:
            self.bar.set_postfix_str(_text({n: v for n, v in logs.items() if n not in hidden}), refresh=False)
        elif "eval_accuracy" in logs:
            self.bar.write(f"epoch {logs['epoch']:g}: validation accuracy {logs['eval_accuracy']:.4f}")

    def on_prediction_step(
        self, args: RunArguments, state: Any, control: Any, eval_dataloader: DataLoader, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if self.reading is None:
            stream = isinstance(eval_dataloader.dataset, IterableDataset)
            total = None if stream else len(eval_dataloader)
            self.reading = tqdm(total=total, desc="reading", unit="batch", leave=False, dynamic_ncols=True)
        self.reading.update()

    def on_evaluate(self, args: RunArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.reading is not None:
            self.reading.close()
            self.reading = None

    def on_train_end(self, args: RunArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def _check_pictures(args: RunArguments, pictures: EmotionDataset | EmotionStream) -> None:
    if isinstance(pictures, EmotionStream):
        return
    found, step = set(pictures.labels), args.train_batch_size * args.world_size
    if lacking := [name for label, name in enumerate(EMOTIONS) if label not in found]:
        raise ValueError(f"Expected pictures of every emotion to train on, found none of {', '.join(lacking)}.")
    if args.dataloader_drop_last and len(pictures) < step:
        raise ValueError(
            f"Expected at least as many pictures as a step takes, {step}; found {len(pictures)}. Lower "
            "--per_device_train_batch_size."
        )


def _widen_scalars(model: nn.Module) -> None:
    """Give parameters without a dimension one, for FSDP takes no others."""
    for name, parameter in list(model.named_parameters()):
        if parameter.ndim == 0:
            owner, _, own = name.rpartition(".")
            widened = nn.Parameter(parameter.detach().reshape(1), parameter.requires_grad)
            setattr(model.get_submodule(owner), own, widened)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of pictures whose emotion has the largest of the logits (N, 8), and N."""
    hits = prediction.predictions.argmax(-1) == prediction.label_ids
    return {"accuracy": float(np.mean(hits)), "pictures": len(hits)}


def _text(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
