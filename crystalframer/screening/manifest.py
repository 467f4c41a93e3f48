"""The manifest of a folder of tables: input, model and shard size of its screening, by which it is known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crystalframer import files
from crystalframer._version import __version__
from crystalframer.config import to_json
from crystalframer.errors import ScreeningError
from crystalframer.model.network import CrystalFramer
from crystalframer.screening.plan import FilePlan, StreamPlan
from crystalframer.screening.shards import numbers_there

MANIFEST = "_screening.json"


def settle(folder: Path, work: FilePlan | StreamPlan, model: CrystalFramer) -> str:
    """Compare the manifest of the folder with this screening, or write it; returns its fingerprint, kept in each table.

    Raises:
        ScreeningError: the folder holds another screening.
    """
    description = {
        "format_version": 1,
        "inputs": [asdict(entry) for entry in work.inputs],
        "n_structures": work.n_structures if isinstance(work, FilePlan) else None,
        "model": fingerprint(model),
        "shard_size": work.shard_size,
    }
    file = folder / MANIFEST
    if file.exists():
        _compare(file, description)
    elif numbers_there(folder):
        raise ScreeningError("holds tables of something else (part-*.parquet); choose another folder", path=folder)
    else:
        about = {
            "screening": description,
            "crystalframer_version": __version__,
            "targets": {target.name: target.unit for target in model.config.targets},
        }
        files.write(file, json.dumps(about, indent=2))
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(model: CrystalFramer) -> str:
    """A hash of everything that predictions depend on."""
    content = hashlib.sha256(to_json(model.evaluation_config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    content.update(b"" if model.domain is None else to_json(model.domain).encode())
    for part in (model.uncertainty, model.index, model.soundness):
        content.update(b"" if part is None else part.to_bytes())
    return content.hexdigest()[:16]


def _compare(file: Path, now: dict[str, Any]) -> None:
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["screening"]
        differences = [] if before == now else list(_differences(before, now))
    except (ValueError, KeyError, TypeError) as error:
        raise ScreeningError(f"is damaged ({error!r}); choose another folder, or delete this one", path=file) from error
    if differences:
        raise ScreeningError(
            f"holds a screening of something else: {'; '.join(differences)}. Choose another folder, or delete this one "
            "to begin anew",
            path=file.parent,
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How two descriptions differ, in words: at least in one way."""
    found = []
    names = [", ".join(entry["given"] for entry in description["inputs"]) for description in (before, now)]
    if names[0] != names[1]:
        found.append(f"its input is {names[0]}, not {names[1]}")
    else:
        for old, new in zip(before["inputs"], now["inputs"], strict=True):
            counts = [f"{old[n]:,} {n[2:]}, now {new[n]:,}" for n in ("n_files", "n_bytes") if old[n] != new[n]]
            if counts:
                found.append(f"{old['given']} had {' and '.join(counts)}")
            elif old["digest"] != new["digest"]:
                found.append(f"{old['given']} has changed (names or times of its files)")
    if before["model"] != now["model"]:
        found.append(f"its model has the fingerprint {before['model']}, and this one {now['model']}")
    if before["shard_size"] != now["shard_size"]:
        found.append(f"its tables have {before['shard_size']:,} structures each, not {now['shard_size']:,}")
    if before["format_version"] != now["format_version"]:
        found.append("another version of crystalframer wrote it")
    return found or [f"it had {before['n_structures']:,} structures, and now there are {now['n_structures']:,}"]
