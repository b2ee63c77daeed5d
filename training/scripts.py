"""How a script of this package ends."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .hub import PublishingError

EXPECTED = (ValueError, OSError, FloatingPointError, PublishingError)
OURS = ("training", "uniemo_pipelines", "__main__")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """An error that this project raises says what to do, and one of the system or the Hub names what is missing: the
    script ends with that line. Any other is shown with all that led to it.

    Raises:
        SystemExit: in place of the former.
    """
    try:
        yield
    except EXPECTED as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        ours = frame.f_globals["__name__"].partition(".")[0] in OURS
        if not ours and not isinstance(error, OSError):
            raise
        raise SystemExit(f"{type(error).__name__}: {error}") from error
