"""Arrow and Parquet files to records: columns go to the producer as they are, piece by piece, and
no row becomes a Python object.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from .._rdkafka import KafkaException
from ..producer import KafkaProducer
from ._inputs import Input
from ._settings import UsageError
from ._tally import Tally

# A piece of a table is held until all of its records are reported: small enough for the memory and
# for progress that moves.
_ROWS = 8192
_BYTES = 4 << 20
_BUFFER = 1 << 20

_ARROW_MAGIC = b"ARROW1"


def _pyarrow(format_name: str) -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as exc:
        raise UsageError(
            f"--format {format_name} needs pyarrow ({exc}): pip install 'kafka-ext[arrow]'"
        ) from None
    return pyarrow


class Tables:
    """The rows of Arrow (file or stream) and Parquet files, by the names of columns."""

    def __init__(self, arguments: argparse.Namespace, source: Input, tally: Tally) -> None:
        self.source, self.tally = source, tally
        self.format: str = arguments.format
        self.pa = _pyarrow(self.format)
        self.value: str | None = arguments.value
        self.key: str | None = arguments.key
        self.partition: str | None = arguments.partition_column
        self.timestamp: str | None = arguments.timestamp_column
        self.headers: list[str] = arguments.header_column
        # Opened and closed again: a wrong column in the last file must not come up when the first
        # has been sent. A pipe can be opened only once, and is read from where this leaves it.
        self._first: dict[str, _Table] = {}
        with ExitStack() as stack:
            for name in dict.fromkeys(source.files):
                table = self._table(name)
                if name == "-" or table.size is None:
                    self._first[name] = table
                else:
                    stack.callback(table.close)

    def _table(self, name: str) -> _Table:
        shown = "standard input" if name == "-" else name
        try:
            table = _opened(self.pa, self.format, name)
        except (OSError, self.pa.lib.ArrowException) as exc:
            what = "an Arrow file or stream" if self.format == "arrow" else "a Parquet file"
            raise UsageError(f"{shown}: cannot be read as {what}: {_line(exc)}") from None
        try:
            table.choose(_columns(self, table.schema, shown))
        except BaseException:
            table.close()
            raise
        return table

    def send_all(self, producer: KafkaProducer, note: Callable[[str], None]) -> None:
        number = 1
        for name in self.source.files:
            shown = "standard input" if name == "-" else name
            try:
                table = self._first.pop(name, None) or self._table(name)
            except UsageError as exc:  # it was right a moment ago
                raise OSError(str(exc)) from None
            before = self.source.done
            rows = 0
            try:
                for batch, share in self._read(table, shown):
                    for start in range(0, batch.num_rows, _ROWS):
                        piece = batch.slice(start, _ROWS)
                        try:
                            self._send(producer, piece, table.value, number)
                        except (TypeError, ValueError) as exc:
                            why = (
                                exc.error.message if isinstance(exc, KafkaException) else _line(exc)
                            )
                            raise OSError(
                                f"{shown}, row {rows + 1:,} and those behind it: {why}"
                            ) from exc
                        number += piece.num_rows
                        rows += piece.num_rows
                        if self.tally.fatal:
                            return
                    self.source.done = before + share * (table.size or 0)
            finally:
                table.close()

    def _read(self, table: _Table, shown: str) -> Iterator[tuple[Any, float]]:
        """The table's batches; what pyarrow raises becomes an OSError that says where."""
        rows = 0
        try:
            for batch, share in table.batches():
                yield batch, share
                rows += batch.num_rows
        except (OSError, self.pa.lib.ArrowException) as exc:
            raise OSError(f"{shown}, behind row {rows:,}: {_line(exc)}") from exc

    def _send(self, producer: KafkaProducer, piece: Any, value: str, number: int) -> None:
        send = functools.partial(
            producer.send_table,
            piece,
            topic=self.tally.topic,
            value=value,
            key=self.key,
            partition=self.partition,
            timestamp=self.timestamp,
            headers=self.headers,
        )
        sizes = _sizes(self.pa, piece.column(value))
        size = self.pa.compute.sum(sizes).as_py() or 0
        self.tally.enqueue(
            send, piece.num_rows, size, number.__add__, lambda index: sizes[index].as_py() or 0
        )


class _Table:
    """One open file: `schema`, then `choose(columns)`, then `batches()` with how much of the file
    is behind each.
    """

    def __init__(self, schema: Any, size: int | None, file: Any) -> None:
        self.schema, self.size, self._file = schema, size, file
        self.value = ""
        self.columns: list[str] = []

    def choose(self, columns: list[str]) -> None:
        """Only these are needed; the first has the values."""
        self.value = columns[0]
        self.columns = list(dict.fromkeys(columns))

    def batches(self) -> Iterator[tuple[Any, float]]:
        raise NotImplementedError

    def close(self) -> None:
        self._file.close()


class _Stream(_Table):
    def __init__(self, pa: Any, file: Any, size: int | None) -> None:
        self._reader = pa.ipc.open_stream(file)
        super().__init__(self._reader.schema, size, file)

    def batches(self) -> Iterator[tuple[Any, float]]:
        for batch in self._reader:
            yield batch.select(self.columns), (self._file.tell() / self.size if self.size else 0.0)


class _File(_Table):
    def __init__(self, pa: Any, file: Any, size: int) -> None:
        self._pa = pa
        super().__init__(pa.ipc.open_file(file).schema, size, file)

    def batches(self) -> Iterator[tuple[Any, float]]:
        fields = [self.schema.get_field_index(name) for name in self.columns]
        reader = self._pa.ipc.open_file(
            self._file, options=self._pa.ipc.IpcReadOptions(included_fields=fields)
        )
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index), (index + 1) / reader.num_record_batches


class _Parquet(_Table):
    def __init__(self, pa: Any, file: Any, size: int) -> None:
        # A buffer: without one the columns of a whole row group are read at once.
        self._reader = pa.parquet.ParquetFile(file, buffer_size=_BUFFER)
        super().__init__(self._reader.schema_arrow, size, file)

    def batches(self) -> Iterator[tuple[Any, float]]:
        metadata = self._reader.metadata
        done = 0
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            size = sum(
                group.column(i).total_uncompressed_size
                for i in range(group.num_columns)
                if group.column(i).path_in_schema.partition(".")[0] in self.columns
                or group.column(i).path_in_schema in self.columns
            )
            rows = max(1, min(_ROWS, _BYTES * group.num_rows // max(size, 1)))
            for batch in self._reader.iter_batches(rows, row_groups=[index], columns=self.columns):
                done += batch.num_rows
                yield batch, done / metadata.num_rows


def _opened(pa: Any, format_name: str, name: str) -> _Table:
    # The table closes what it was given: a number of its own for the standard input, which stays
    # open.
    raw = io.FileIO(os.dup(0) if name == "-" else name)
    with ExitStack() as failed:
        failed.callback(raw.close)
        found = os.fstat(raw.fileno())
        table: _Table
        if not stat.S_ISREG(found.st_mode):
            if raw.isatty():
                raise OSError("it is a terminal")
            if format_name == "parquet":
                raise OSError("it is a pipe, and Parquet is read from its end; name the file")
            # Buffered, because a pipe gives what there is, and pyarrow takes less than it asked for
            # as the end.
            table = _Stream(pa, io.BufferedReader(raw, _BUFFER), None)
        else:
            is_file = os.pread(raw.fileno(), len(_ARROW_MAGIC), 0) == _ARROW_MAGIC
            file = failed.enter_context(pa.PythonFile(raw, "r") if name == "-" else pa.OSFile(name))
            kind = _Parquet if format_name == "parquet" else _File if is_file else _Stream
            table = kind(pa, file, found.st_size)
            if name != "-":
                raw.close()
        failed.pop_all()
        return table


def _columns(chosen: Tables, schema: Any, shown: str) -> list[str]:
    """The names of all columns that are needed, the values' first; all are there, once, and of
    types that can be sent.
    """
    pa = chosen.pa
    value = chosen.value
    if value is None:
        possible = [field.name for field in schema if _is_text(pa, field.type)]
        if len(possible) != 1:
            some = (
                f"of {', '.join(possible)}"
                if possible
                else f"(none of {', '.join(schema.names)} is binary or a string)"
            )
            raise UsageError(f"{shown}: which column {some} has the values? --value COLUMN")
        value = possible[0]
    texts = [
        ("--value", value),
        ("--key", chosen.key),
        *(("--header-column", name) for name in chosen.headers),
    ]
    numbers = [("--partition-column", chosen.partition), ("--timestamp-column", chosen.timestamp)]
    for option, name in (*texts, *numbers):
        if name is None:
            continue
        count = schema.names.count(name)
        if count != 1:
            problem = (
                f"no column {name!r}; it has {', '.join(schema.names)}"
                if not count
                else f"{count} columns {name!r}"
            )
            raise UsageError(f"{option}: {shown} has {problem}")
        kind = schema.field(name).type
        if (option, name) in texts:
            fits, wanted = _is_text(pa, kind), "binary or string"
        else:
            fits = pa.types.is_integer(kind) or (
                option == "--timestamp-column" and pa.types.is_timestamp(kind)
            )
            wanted = (
                "integers"
                if option == "--partition-column"
                else "integers (milliseconds) or timestamps"
            )
        if not fits:
            raise UsageError(f"{option}: column {name!r} of {shown} is {kind}; it must be {wanted}")
    return [name for _, name in (*texts, *numbers) if name is not None]


def _is_text(pa: Any, kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    names = (
        "is_binary is_large_binary is_fixed_size_binary is_binary_view is_string is_large_string"
        " is_string_view"
    )
    return any(getattr(pa.types, name)(kind) for name in names.split())


def _sizes(pa: Any, column: Any) -> Any:
    """The length in bytes of each value, null where it is null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _sizes(pa, column.dictionary).take(column.indices)
    if pa.types.is_binary_view(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_binary())  # there is no binary_length of views
    return pa.compute.binary_length(column)


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
