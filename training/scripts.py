"""How a script of this package ends."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .hub import PublishingError

EXPECTED = (ValueError, OSError, FloatingPointError, PublishingError)
OURS = ("training", "uniemo_pipelines", "__main__")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """An error that this project raises says what to do, and ends the script with that line; any other is shown with
    all that led to it.

    Raises:
        SystemExit: in place of the former.
    """
    try:
        yield
    except EXPECTED as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"].partition(".")[0] not in OURS:
            raise
        raise SystemExit(f"{type(error).__name__}: {error}") from error
