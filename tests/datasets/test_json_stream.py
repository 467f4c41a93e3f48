from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from crystalframer.datasets import json_stream
from crystalframer.datasets.json_stream import BadText, iter_json, open_gzip, open_member
from crystalframer.errors import DataError

VALUES = [
    1,
    -2.5e-3,
    12345678901234567890,
    'text with ] , } and "quotes" and Å',
    None,
    True,
    [],
    {},
    [[1, 2], {"a": [3]}],
    {"b": {"c": "\\"}},
    float("nan"),
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_one_by_one_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    text = json.dumps(VALUES, indent=indent, ensure_ascii=False)
    assert repr(list(iter_json(io.StringIO(text)))) == repr(VALUES)
    table = json.dumps({"index": [1, 2], "columns": ["data"], "data": VALUES, "more": 1}, indent=indent)
    assert repr(list(iter_json(io.StringIO(table), "data"))) == repr(VALUES)


def test_an_empty_list() -> None:
    assert list(iter_json(io.StringIO(" [ ] "))) == []


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ("", "", "ends too early"),
        ("[1, 2", "", "ends too early"),
        ('[{"a": 1}, {"b": ', "", "ends too early"),
        ("[1 2]", "", "expected , or ]"),
        ("{}", "", "expected ["),
        ('{"a": 1}', "data", "expected an entry 'data'"),
        ("[1, oops, 2]", "", "damaged"),
    ],
)
def test_damaged_text(text: str, key: str, word: str) -> None:
    with refused(BadText, word):
        list(iter_json(io.StringIO(text), key))


def test_damaged_text_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    monkeypatch.setattr(json_stream, "LONGEST_VALUE", 1000)
    file = io.StringIO("[oops" + "1" * 100_000)
    with refused(BadText, "damaged"):
        list(iter_json(file))
    assert file.tell() < 5000


def test_reading_holds_little_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(json_stream, "CHUNK", 10_000)
    text = json.dumps([{"row": row, "numbers": np.arange(50.0).tolist()} for row in range(20_000)])
    file = io.StringIO(text)
    tracemalloc.start()
    n = sum(1 for _ in iter_json(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 20_000
    assert peak < 400_000 < len(text) / 10


def test_a_zip_archive_is_never_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "inner" / "evil.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("../../escaped.json", "[1, 2]")
        content.writestr("/absolute.json", "[]")
    with open_member(archive, "escaped.json") as text:
        assert list(iter_json(text)) == [1, 2]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["evil.zip"]


def test_cut_archives(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "data.json.gz"
    path.write_bytes(gzip.compress(json.dumps(list(range(10_000))).encode())[:-3000])
    with refused(DataError, path=path), open_gzip(path) as text:
        list(iter_json(text))
    path.write_bytes(b"no gzip")
    with refused(DataError, path=path), open_gzip(path) as text:
        list(iter_json(text))
