"""A stage from its first step to its place on the Hub."""

from collections.abc import Callable
from typing import Any

from accelerate import PartialState

from .cards import CardContent, Kind, changed_arguments, write_card
from .config import RunArguments
from .data import DataArguments
from .hub import check_publishing, publish
from .runs import Run, open_run


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
    state = PartialState(cpu=training.use_cpu)
    pushes, training.push_to_hub = training.push_to_hub, False  # the Trainer would push checkpoints and its own card
    run = open_run(training, data, arguments)
    name = run.folder.resolve().name
    if pushes and state.is_main_process:
        name = check_publishing(
            training.hub_model_id or name, token=training.hub_token, private=training.hub_private_repo
        )
    if not run.finished:
        work(run)
    if state.is_main_process:
        changed = changed_arguments(data) | changed_arguments(arguments) | changed_arguments(training)
        write_card(
            run.folder,
            CardContent(
                kind=kind, name=name, base_model=base_model, data=data.data, arguments=changed, results=run.results
            ),
        )
        if pushes:
            print(publish(run.folder, name, token=training.hub_token))
    state.wait_for_everyone()
