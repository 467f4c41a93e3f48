"""Names of properties in words, with their symbols, for the axes of figures."""

from __future__ import annotations

import re
from typing import NamedTuple

from viz.text import literal


class _Quantity(NamedTuple):
    words: str
    symbol: str = ""
    subscript: str = ""


_KNOWN = {
    "formation_energy_per_atom": _Quantity("formation energy", "E", "f"),
    "energy_above_hull": _Quantity("energy above hull", "E", "hull"),
    "total_energy_per_atom": _Quantity("total energy", "E"),
    "band_gap": _Quantity("band gap", "E", "g"),
    "bulk_modulus": _Quantity("bulk modulus", "K"),
    "shear_modulus": _Quantity("shear modulus", "G"),
    "refractive_index": _Quantity("refractive index", "n"),
}
_LOGARITHM = "log10"


def axis_tex(name: str, unit: str = "") -> str:
    r"""The title of an axis in matplotlib, such as `band gap $E_\mathrm{g}$ (eV)`.

    >>> axis_tex("log10_bulk_modulus", "log10(GPa)")
    'bulk modulus log$_{10}$ $K$ ($K$ in GPa)'
    """
    quantity, unit, is_log = _read(name, unit)
    words, unit = (text.replace("$", r"\$") for text in (quantity.words, unit))
    symbol = quantity.symbol and f"${quantity.symbol}" + (
        rf"_\mathrm{{{quantity.subscript}}}$" if quantity.subscript else "$"
    )
    return _title(words, symbol, unit, r"log$_{10}$" if is_log else "")


def axis_html(name: str, unit: str = "") -> str:
    """The same for plotly, which reads tags. Names from files are escaped.

    >>> axis_html("band_gap", "eV")
    'band gap <i>E</i><sub>g</sub> (eV)'
    """
    quantity, unit, is_log = _read(name, unit)
    symbol = quantity.symbol and f"<i>{quantity.symbol}</i>" + (
        f"<sub>{quantity.subscript}</sub>" if quantity.subscript else ""
    )
    return _title(literal(quantity.words), symbol, literal(unit), "log<sub>10</sub>" if is_log else "")


def name_and_unit(label: str) -> tuple[str, str]:
    """What `Target.label` joins.

    >>> name_and_unit("log10_bulk_modulus (log10(GPa))")
    ('log10_bulk_modulus', 'log10(GPa)')
    """
    name, _, unit = label.partition(" (")
    return (name, unit.removesuffix(")")) if unit.endswith(")") else (label, "")


def without_logarithm(name: str, unit: str) -> tuple[str, str]:
    """Name and unit of the quantity of which a property may be the logarithm.

    >>> without_logarithm("log10_bulk_modulus", "log10(GPa)")
    ('bulk_modulus', 'GPa')
    """
    inner = re.fullmatch(rf"{_LOGARITHM}(?: (.*)|\((.*)\))", unit)
    return name.removeprefix(f"{_LOGARITHM}_"), (inner[1] or inner[2]) if inner else unit


def _read(name: str, unit: str) -> tuple[_Quantity, str, bool]:
    plain, unit = without_logarithm(name, unit)
    return _KNOWN.get(plain, _Quantity(plain.replace("_", " "))), unit, plain != name


def _title(words: str, symbol: str, unit: str, logarithm: str) -> str:
    if not logarithm:
        return " ".join(part for part in (words, symbol, f"({unit})" if unit else "") if part)
    if symbol:
        return f"{words} {logarithm} {symbol}" + (f" ({symbol} in {unit})" if unit else "")
    return f"{logarithm} of {words}" + (f" (in {unit})" if unit else "")
