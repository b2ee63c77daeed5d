"""A table of predictions that grows batch by batch and survives a kill at any moment.

Rows are appended to a journal beside the table, and the journal becomes the table when all is done. So Parquet, which
cannot be appended to, is as safe as CSV and JSON lines, and a table that is there is a whole one.
"""

import csv
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

Value = str | float
Row = dict[str, Value]

ROWS_AT_ONCE = 4096  # of Parquet, a row group


def check_parquet(table: Path) -> None:
    """Raises ValueError where the table's suffix asks for Parquet and pyarrow is missing."""
    if table.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{table}: expected pyarrow for Parquet, found none; "
            'pip install "uniemo-pipelines[parquet]", or name a .csv or .jsonl file.'
        )


class PredictionTable:
    """The rows so far, in a journal: a line that says what they are of, then a line a row.

    Args:
        path: of the table, its suffix one of `SUFFIXES`.
        about: what must be the same for rows to stand in one table, by name.
        columns: of a row; the first one names it.

    Attributes:
        done: the rows' names.

    Raises:
        ValueError: there is a journal already, about something else.
    """

    def __init__(self, path: Path, about: dict[str, str], columns: Sequence[str]) -> None:
        self.path = path
        self.journal = path.with_name(f"{path.name}.journal")
        self.columns = list(columns)
        self.done: set[Value] = set()
        head = {**about, "columns": self.columns}
        if self.journal.exists():
            self._resume(head)
        # Unbuffered: what was added is there whatever happens to this process.
        self._file = open(self.journal, "ab", buffering=0)
        if self._file.tell() == 0:
            self._append([head])

    def _resume(self, head: dict[str, Any]) -> None:
        """Takes note of what is done, and cuts off what a kill left of a line."""
        with open(self.journal, "r+b") as file:
            found, whole = _parsed(file.readline()), 0
            if found is not None:
                if other := [name for name in head if found.get(name) != head[name]]:
                    raise ValueError(
                        f"{self.journal}: begun with another {' and another '.join(other)}; finish it by the command "
                        "that began it, or delete it to begin anew."
                    )
                whole = file.tell()
                while (row := _parsed(file.readline())) is not None:
                    self.done.add(row[0])
                    whole = file.tell()
            file.truncate(whole)

    def _append(self, lines: Iterable[Any]) -> None:
        self._file.write("".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, rows: Sequence[Sequence[Value]]) -> None:
        """Appends rows, their values in the columns' order.

        Raises:
            OSError: the disk is full.
        """
        self._append(rows)
        self.done.update(row[0] for row in rows)

    def finish(self) -> None:
        """Turns the journal into the table, which replaces an older one whole or not at all.

        Raises:
            OSError: the disk is full or the folder refuses the file; the journal stays.
        """
        self._file.close()
        half = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            _WRITERS[self.path.suffix.lower()](self._rows(), self.columns, half)
            os.replace(half, self.path)
        finally:
            half.unlink(missing_ok=True)
        self.journal.unlink()

    def _rows(self) -> Iterator[Row]:
        with open(self.journal, "rb") as file:
            next(file)
            for line in file:
                yield dict(zip(self.columns, json.loads(line), strict=True))


def _parsed(line: bytes) -> Any:
    """The line's value; None for the end of the file and for a line cut short."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _write_jsonl(rows: Iterator[Row], columns: Sequence[str], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_csv(rows: Iterator[Row], columns: Sequence[str], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_parquet(rows: Iterator[Row], columns: Sequence[str], path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    first = list(islice(rows, ROWS_AT_ONCE))
    schema = pyarrow.Table.from_pylist(first).schema if first else pyarrow.schema([(c, "string") for c in columns])
    with ParquetWriter(path, schema) as file:
        while first:
            file.write_table(pyarrow.Table.from_pylist(first, schema))
            first = list(islice(rows, ROWS_AT_ONCE))


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
SUFFIXES = tuple(_WRITERS)
