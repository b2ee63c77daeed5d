"""The paper on MiniEmoSet with one command: understanding, generation and feedback, as tables and figures.

    python -m training.reproduce --config training/configs/reproduction.yaml --size small   # a smoke test
    python -m training.reproduce --config training/configs/reproduction.yaml --size full    # the tables

Trains every row of the three tables with every seed, and the rivals, by this package's scripts: what is run is in
training/reproducing/plan.py, each command's output in `logs/`. The same command again goes on where it was stopped.
A seed decides the labelled subset, fresh weights, the order of the pictures and the noise of the images; all rows of a
seed share them. Shared by all are the data, the CLIP that knows half of it, and the package's Stable Diffusion.

The full size reads the test split and asks the final judge, which took no part in any choice, when all is trained. The
small size never does: it has the calibration split and the development judge, and its numbers are not to be quoted.

`--tables understanding` makes one of the tables alone. Of each there is a file, `understanding.json` and so on, and
`reproduction.md`, `understanding.png`, `curves.png` and `feedback.png` are made from those that are there.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .config import parse
from .files import write_whole
from .reproducing.figures import figures
from .reproducing.measuring import collect
from .reproducing.plan import SIZES, Plan
from .reproducing.results import together
from .reproducing.rows import TABLES
from .reproducing.tables import report
from .runs import read_json, write_json
from .scripts import errors_in_one_line
from .tasks import run_tasks


@dataclass(kw_only=True)
class ReproductionArguments:
    """How much, and where."""

    config: str = field(metadata={"help": "YAML file with a section for this and for every step's script"})
    size: str = field(metadata={"help": "how much", "choices": list(SIZES)})
    output: str = field(metadata={"help": "folder; each size has one of its own in it"})
    tables: list[str] = field(
        default_factory=lambda: list(TABLES), metadata={"help": "which ones to make", "choices": TABLES}
    )
    bf16: bool | None = field(
        default=None,
        metadata={"help": "stage 1 and drawing in bfloat16; if not said, where the processor has units for it (AMX)"},
    )
    workers: int = field(
        default_factory=lambda: os.cpu_count() or 1, metadata={"help": "commands side by side; one a processor"}
    )


def main(arguments: ReproductionArguments) -> None:
    """Run what has not been run yet, then collect, write and print."""
    output = Path(arguments.output, arguments.size)
    bf16 = torch.cpu._is_amx_tile_supported() if arguments.bf16 is None else arguments.bf16
    plan = Plan(SIZES[arguments.size], arguments.config, output, arguments.tables, bf16)
    run_tasks(plan.tasks(), output, arguments.workers)
    for table in arguments.tables:
        write_json(output / f"{table}.json", collect(plan, arguments.size, table))
    results = together([read_json(path) for table in TABLES if (path := output / f"{table}.json").is_file()])
    text = report(results)
    for name, figure in figures(results).items():
        figure.savefig(output / f"{name}.png", dpi=110)
    write_whole(output / "reproduction.md", text)
    print(text)


if __name__ == "__main__":
    with errors_in_one_line():
        main(parse(ReproductionArguments, "reproduce"))
