"""Runs a stage of the tests' tiny world in a process of its own, where it may be killed or have company.

python tests/stage_driver.py STAGE WORLD OUTPUT '{"argument": value}' [--kill-at STEP | --kill-in-checkpoint STEP]
"""

import json
import os
import signal
from argparse import ArgumentParser
from pathlib import Path

from training_world import stage1, stage2
from transformers import TrainerCallback

from training import train_joint, train_understanding
from training.engine import StageTrainer


class KillAt(TrainerCallback):
    """As the machine's power does it: no handler runs, nothing is flushed."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill(trainer: StageTrainer, step: int | None, checkpoint: int | None) -> None:
    if step is not None:
        trainer.add_callback(KillAt(step))
    if checkpoint is not None:
        save = trainer._save_optimizer_and_scheduler

        def killed(folder: str) -> None:
            if trainer.state.global_step == checkpoint:
                os.kill(os.getpid(), signal.SIGKILL)  # the weights are there, nothing else is
            save(folder)

        trainer._save_optimizer_and_scheduler = killed


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("stage", choices=["stage1", "stage2"])
    parser.add_argument("world", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("changes", type=json.loads)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--kill-in-checkpoint", type=int)
    given = parser.parse_args()
    started = StageTrainer.train

    def train(self: StageTrainer, **options):
        kill(self, given.kill_at, given.kill_in_checkpoint)
        return started(self, **options)

    StageTrainer.train = train
    if given.stage == "stage1":
        train_understanding.main(*stage1(given.world, given.output, **given.changes))
    else:
        train_joint.main(*stage2(given.world, given.world / "understanding", given.output, **given.changes))


if __name__ == "__main__":
    main()
