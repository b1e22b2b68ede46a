"""Tables by pyarrow: Parquet, Feather and Arrow files.

By itself a table is a DataFrame, or a list of rows without pandas. Among other files it is CSV text, so that
a folder stays a dict of path -> text.
"""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

from .base import Allowance, Document, RefusedError, library

__all__ = ["read_table"]

_BATCH_ROWS = 4096


def read_table(data: bytes, allowance: Allowance, *, suffix: str, as_text: bool) -> Document:
    """Read the table in ``data``, a Parquet file or by ``suffix`` an Arrow one.

    Raises:
        RefusedError: over a limit. What pyarrow raises for broken files passes.
    """
    pyarrow = library("pyarrow", "a table")
    table = pyarrow.Table.from_batches(*_batches(pyarrow, data, suffix, allowance))
    if not as_text:
        return Document("table", _value(table))
    if not len(table.column_names):
        raise RefusedError("has no columns")
    written = io.BytesIO()
    try:
        library("pyarrow.csv", "a table").write_csv(table, written)
    except pyarrow.ArrowException as error:
        raise RefusedError("its columns hold values that CSV can't: give the file by itself") from error
    text = written.getvalue().decode("utf-8", "replace")
    allowance.check(len(text))
    return Document("table", text)


def _batches(pyarrow: Any, data: bytes, suffix: str, allowance: Allowance) -> tuple[list[Any], Any]:
    """Return the table's batches and its schema, unpacking no more than is allowed."""
    buffer = pyarrow.py_buffer(data)
    if suffix == ".parquet":
        file = library("pyarrow.parquet", "a table").ParquetFile(buffer)
        schema = file.schema_arrow
        source = file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
    else:
        if data.startswith(b"FEA1"):
            table = library("pyarrow.feather", "a table").read_table(buffer)
            return table.to_batches(), table.schema
        file = pyarrow.ipc.open_file(buffer)
        schema = file.schema
        source = (file.get_batch(number) for number in range(file.num_record_batches))
    clock = allowance.clock()
    found = []
    for batch in source:
        clock.check()
        allowance.unpack(batch.nbytes)
        found.append(batch)
    return found, schema


def _value(table: Any) -> Any:
    try:
        import_module("pandas")
    except ImportError:
        return table.to_pylist()
    return table.to_pandas()
