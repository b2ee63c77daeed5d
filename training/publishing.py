"""A stage from its first step to its place on the Hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from accelerate import PartialState

from uniemo_pipelines.cards_uniemo import write_card
from uniemo_pipelines.training_records_uniemo import TrainingRecord, write_record

from .cards import Kind, changed_arguments, run_text
from .config import RunArguments
from .data import DataArguments
from .hub import check_publishing, publish
from .runs import Run, open_run


class Publishing(Protocol):
    """transformers' own arguments about the Hub."""

    push_to_hub: bool
    hub_model_id: str | None
    hub_token: str | None
    hub_private_repo: bool | None


class Place:
    """Where a folder is published, if it is.

    Args:
        folder: what will be there.
        arguments: `push_to_hub` decides; the repository is `hub_model_id`, or named as the folder.

    Raises:
        PublishingError: the Hub would not take it. Nothing has been done then.
    """

    def __init__(self, folder: Path, arguments: Publishing) -> None:
        self.folder, self.token = folder, arguments.hub_token
        self.name, self.is_pushed = folder.resolve().name, arguments.push_to_hub
        if self.is_pushed and PartialState().is_main_process:
            repository = arguments.hub_model_id or self.name
            self.name = check_publishing(repository, token=self.token, private=arguments.hub_private_repo)

    def fill(
        self, kind: Kind, base_model: str | None, data: str, arguments: Mapping[str, Any], license: str | None = None
    ) -> None:
        """Write how the folder was made, and its card, and push it if it is to be pushed.

        Raises:
            PublishingError: the Hub did not take it; all is saved.
        """
        if PartialState().is_main_process:
            record = TrainingRecord(base_model=base_model, data=data, arguments={kind: arguments}, license=license)
            write_record(self.folder, record)
            write_card(self.folder, self.name, run_text(self.folder, kind))
        self.push()

    def push(self) -> None:
        """Push the folder as it is, if it is to be pushed.

        Raises:
            PublishingError: the Hub did not take it; all is saved.
        """
        if self.is_pushed and PartialState().is_main_process:
            print(publish(self.folder, self.name, token=self.token))
        PartialState().wait_for_everyone()


def carry_out(
    kind: Kind,
    base_model: str,
    data: DataArguments,
    arguments: Any,
    training: RunArguments,
    work: Callable[[Run], None],
) -> None:
    """Do a run's work unless it is finished, write its card, and push its folder if `--push_to_hub` is given.

    The same command again goes on with a run that was stopped, and repeats a push that broke off.

    Args:
        kind: of the card.
        base_model: what was trained on.
        data, arguments, training: the script's arguments.
        work: trains and writes the folder, with the results last.

    Raises:
        PublishingError: before the work, if the Hub would not take it; after it, when all is saved, if it did not.
        ValueError: the folder holds another run, see `open_run`.
    """
    place = Place(Path(training.output_dir), training)
    training.push_to_hub = False  # or the Trainer pushes checkpoints, and a card of its own
    run = open_run(training, data, arguments)
    if not run.finished:
        work(run)
    PartialState().wait_for_everyone()
    changed = changed_arguments(data) | changed_arguments(arguments) | changed_arguments(training)
    place.fill(kind, base_model, data.data, changed, training.license)
