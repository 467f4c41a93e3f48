"""A trained model as an ASE calculator: the energy of `Atoms`, without forces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, PropertyNotImplementedError, all_changes

from crystalframer.config import Target
from crystalframer.errors import ConfigError, suggestion
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import predict, ready

PER_ATOM, PER_CELL = "eV/atom", "eV"


class CrystalFramerCalculator(Calculator):
    """ASE calculator: the energy of periodic `ase.Atoms`, predicted by a model of a formation or total energy.

    Use it to rank structures, and in scripts that call `atoms.get_potential_energy()`. There are no forces and no
    stress: in most models, also in the shipped one, the energy is not a smooth function of the positions. Relax
    structures with an interatomic potential first, then predict. `docs/how-to/derivatives.md` says which models have
    derivatives.

    >>> import crystalframer as cf
    >>> from ase.build import bulk
    >>> atoms = bulk("NaCl", "rocksalt", a=5.64)
    >>> atoms.calc = cf.CrystalFramerCalculator()
    >>> energy = atoms.get_potential_energy()  # eV, of the cell: two atoms
    >>> energy / 2 == atoms.calc.predictions["formation_energy_per_atom"]
    True
    """

    implemented_properties = ["energy"]  # noqa: RUF012 - ASE's own way

    def __init__(
        self,
        model: CrystalFramer | str | Path | None = None,
        target: str | None = None,
        device: torch.device | str | None = None,
        **ase_options: Any,
    ) -> None:
        """Args:
            model: a model, or the path of one. Default: the weights that come with the package.
            target: target that is the energy, in eV/atom (multiplied by the number of atoms) or eV (per cell).
                Default: the only one in eV/atom.
            device: where to compute, as in `crystalframer.predict`.
            ase_options: options of every ASE calculator (`label`, `atoms`, ...).

        Raises:
            ConfigError: the model has no such target, none or several in eV/atom, or the target is not in eV.
            CheckpointError: the model cannot be loaded.
        """
        super().__init__(**ase_options)
        self.model = ready(model, device)
        self.target = _energy(self.model.config.targets, target)
        self.predictions: dict[str, float] = {}
        """Target name → prediction for the last structure, in the target's unit."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        row = predict(self.atoms, self.model, progress=False).iloc[0]
        if row["error"] is not None:
            raise CalculationFailed(row["error"])
        self.predictions = {name: float(row[name]) for name in self.model.config.target_names}
        assert self.atoms is not None
        n = len(self.atoms) if self.target.unit == PER_ATOM else 1
        self.results["energy"] = self.predictions[self.target.name] * n

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        if name not in self.implemented_properties:
            raise PropertyNotImplementedError(
                f"{name}: this calculator has the energy alone ({self.target.label}), and no forces and no stress: in "
                "most models the energy is not a smooth function of the positions (docs/how-to/derivatives.md says in "
                "which it is). Relax with an interatomic potential first"
            )
        return super().get_property(name, atoms, allow_calculation)


def _energy(targets: Sequence[Target], name: str | None) -> Target:
    """The target that is the energy."""
    names = [target.name for target in targets]
    if name is None:
        energies = [target for target in targets if target.unit == PER_ATOM]
        if len(energies) == 1:
            return energies[0]
        what = "several targets" if energies else "no target"
        labels = ", ".join(target.label for target in targets)
        raise ConfigError(f"the model has {what} in {PER_ATOM} ({labels}); name the energy", field="target")
    if name not in names:
        raise ConfigError(f"the model has no such target{suggestion(name, names)}", field="target", value=name)
    chosen = targets[names.index(name)]
    if chosen.unit not in (PER_ATOM, PER_CELL):
        problem = f"{chosen.label} is not an energy: its unit must be {PER_ATOM} or {PER_CELL}"
        raise ConfigError(problem, field="target", value=name)
    return chosen
