"""A run's folder: what it was started with, its checkpoints, and its results.

arguments.json      all arguments; a run goes on with the same ones only
checkpoint-N/       trained weights, optimizer, schedule and random states after step N; whole if it has `whole`
results.json, .md   figures at the end; a run that has them is finished
training_log.json   every record of losses and validation; curves.png shows them
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers.trainer_utils import sort_checkpoints

from uniemo_pipelines.cards_uniemo import CURVES
from uniemo_pipelines.training_records_uniemo import RESULTS, Result, read_results, results_table, write_results

from .config import RunArguments
from .files import write_whole
from .reports import Record, draw_curves

ARGUMENTS, LOG, WHOLE = "arguments.json", "training_log.json", "whole"
FIRST_SPACE = "first_emotion_space.safetensors"

# The arguments of transformers' own that decide a run's numbers; all of ours do, but for those that say how to read.
DECISIVE = (
    "seed full_determinism num_train_epochs max_steps per_device_train_batch_size "
    "gradient_accumulation_steps lr_scheduler_type lr_scheduler_kwargs warmup_steps max_grad_norm optim optim_args "
    "adam_beta1 adam_beta2 adam_epsilon bf16 fp16 dataloader_drop_last eval_strategy eval_steps metric_for_best_model "
    "load_best_model_at_end neftune_noise_alpha"
).split()
READING = ("keep_images", "latents", "validation_steps")


@dataclass(frozen=True)
class Run:
    """A folder that a training script writes, new or begun."""

    folder: Path
    arguments: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it has its results."""
        return (self.folder / RESULTS).is_file()

    @property
    def results(self) -> list[Result]:
        """The figures of a finished run."""
        return read_results(self.folder)

    def finish(self, results: Sequence[Result], log: Sequence[Record]) -> None:
        """Write results, log and curves, and print the table; results last, for they say that the run is finished."""
        write_json(self.folder / LOG, log)
        draw_curves(log, self.folder / CURVES)
        (self.folder / "results.md").write_text(results_table(results) + "\n", encoding="utf-8")
        write_results(self.folder, results)
        print(results_table(results))

    def last_checkpoint(self) -> str | None:
        """The newest whole checkpoint; None where the run has none yet."""
        whole = [path for path in sort_checkpoints(str(self.folder)) if Path(path, WHOLE).is_file()]
        return whole[-1] if whole else None


def open_run(training: RunArguments, *others: Any) -> Run:
    """The run that the arguments describe: a new one, or the one in `output_dir`, to be gone on with.

    A checkpoint that was being written when the run was stopped is removed.

    Args:
        training: the run's own arguments.
        others: the script's further dataclasses.

    Raises:
        ValueError: `output_dir` holds a run with other arguments, each of which is named, or files of something else.
    """
    folder = Path(training.output_dir)
    decisive = decisive_arguments(training, *others)
    path = folder / ARGUMENTS
    if begun := any(folder.glob("checkpoint-*")) or (folder / RESULTS).is_file():
        if not path.is_file():
            raise ValueError(
                f"{folder} holds a run of something else, without {ARGUMENTS}; give another --output_dir."
            )
        _compare(json.loads(path.read_text(encoding="utf-8"))["decisive"], decisive, folder)
    if training.should_save:
        if not begun:
            if folder.is_dir() and any(folder.iterdir()) and not path.is_file():
                raise ValueError(f"{folder} holds files of something else; give another --output_dir.")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FIRST_SPACE).unlink(missing_ok=True)  # of a run with other arguments, perhaps
            content = {"decisive": decisive, "training": training.to_dict()}
            write_json(path, content)
        for checkpoint in sort_checkpoints(str(folder)):
            if not Path(checkpoint, WHOLE).is_file():
                shutil.rmtree(checkpoint)
    return Run(folder, decisive)


def decisive_arguments(training: RunArguments, *others: Any) -> dict[str, Any]:
    """Every argument that decides the numbers of a run, as JSON holds it."""
    chosen = {name: value for one in others for name, value in asdict(one).items() if name not in READING}
    own = training.to_dict()
    chosen |= {name: own[name] for name in DECISIVE}
    chosen["processes"] = training.world_size
    return json.loads(json.dumps(chosen))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each by its name with the old value and the new."""
    names = sorted(before.keys() | now.keys())
    return [f"{name} {before.get(name)!r} -> {now.get(name)!r}" for name in names if before.get(name) != now.get(name)]


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    if changed := changes(before, now):
        raise ValueError(
            f"{folder} holds a run with other arguments: {'; '.join(changed)}. Give the old ones to go on with it, or "
            "another --output_dir to begin a new one."
        )


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """What a file of `write_json` holds."""
    return json.loads(path.read_text(encoding="utf-8"))
