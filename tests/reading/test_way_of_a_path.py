"""How far the path of a CIF file travels through the files of the package until there is a crystal.

`python tests/reading/test_way_of_a_path.py` prints the way.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from pymatgen.core import Lattice, Structure

AROUND = ("surroundings.py", "forks.py")
"""Settings that are in force around the functions of the way, and threads that they note; the way does not lead there.
"""
MOST_STAYS, MOST_RETURNS = 10, 3


def way() -> list[str]:
    """Files of the package in the order in which `cf.trace(path, model)` enters them, until it has the crystal.

    A stay is a row of calls to code of one file. All calls count, whether they get the path or not, also those of
    comprehensions, and of generators that go on; code that `dataclass` generates lies in no file. The last stay is that
    of `cf.trace`, which goes on with the crystal.
    """
    import crystalframer as cf

    package = Path(cf.__file__).parent
    model = cf.load(device="cpu")
    files: list[str] = []
    code = inspect.unwrap(cf.trace).__code__

    def follow(frame: FrameType, event: str, result: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and package in file.parents and file.name not in AROUND:
            files.append(str(file.relative_to(package)))
        elif event == "return" and isinstance(result, cf.Crystal) and getattr(frame.f_back, "f_code", None) is code:
            sys.setprofile(None)
            files.append(files[0])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "salt.cif"
        Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(str(path))
        cf.trace(path, model)  # imports what is imported when it is needed
        sys.setprofile(follow)
        cf.trace(path, model)
    return [file for file, before in zip(files, [None, *files[:-1]], strict=True) if file != before]


def test_a_path_takes_a_short_way() -> None:
    """In a process of its own: the checks of types and shapes that tests run under lie in the way."""
    result = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    stays = json.loads(result.stdout)
    assert stays[0] == stays[-1] == "prediction.py" and "reading/cif.py" in stays
    assert len(stays) <= MOST_STAYS, stays
    assert len(stays) - len(set(stays)) <= MOST_RETURNS, stays


if __name__ == "__main__":
    print(json.dumps(way()))
