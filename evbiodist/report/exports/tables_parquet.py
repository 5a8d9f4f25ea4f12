"""Every table as Parquet: typed columns, with units and meanings in the file's own metadata."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evbiodist.report.exports.columns import described, tables_of
from evbiodist.report.exports.registry import Exported
from evbiodist.report.folder import ResultFolder

if TYPE_CHECKING:
    import pandas as pd


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return a Parquet file for each table that has rows; numbers are those of the CSV to the last bit.

    Parameters
    ----------
    results : of a run.
    options : none.
    """
    about = {"study": str(results.study["name"]), "made_by": "evbiodist"}
    return Exported({f"{name}.parquet": _parquet(name, table, about) for name, table in tables_of(results).items()})


def _parquet(name: str, table: pd.DataFrame, about: Mapping[str, str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"string": pa.string(), "number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_()}
    fields = []
    for column in table.columns:
        c = described(name, column)
        fields.append(pa.field(column, types[c.type], metadata={"unit": c.unit, "meaning": c.meaning}))
    schema = pa.schema(fields, metadata={"table": name, **about})
    arrays = [pa.array(table[f.name], type=f.type, from_pandas=True) for f in fields]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
