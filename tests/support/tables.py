"""Tables of crystals, as files of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import pandas


def write_rows(path: Path, rows: list[dict]) -> Path:
    """A table of these rows in the format of the suffix."""
    if path.suffix in (".csv", ".tsv"):
        cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        pandas.DataFrame(cells).to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path
