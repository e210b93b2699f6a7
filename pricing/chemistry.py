"""Formulas and atomic weights: the theoretical mass share of an element in a compound."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache

from pricing.errors import UnitError

ATOMIC_WEIGHTS_SOURCE = "IUPAC/CIAAW standard atomic weights 2021, doi:10.1515/pac-2019-0603"

# Elements whose weight varies in nature stand with their conventional value. A newer table is a change of method
# (2024 brought 91.222 for zirconium).
# fmt: off
ATOMIC_WEIGHTS = {
    "H": 1.008, "Li": 6.94, "Be": 9.0121831, "B": 10.81, "C": 12.011, "N": 14.007, "O": 15.999, "F": 18.998403162,
    "Na": 22.98976928, "Mg": 24.305, "Al": 26.9815384, "Si": 28.085, "P": 30.973761998, "S": 32.06, "Cl": 35.45,
    "K": 39.0983, "Ca": 40.078, "Sc": 44.955907, "Ti": 47.867, "V": 50.9415, "Cr": 51.9961, "Mn": 54.938043,
    "Fe": 55.845, "Co": 58.933194, "Ni": 58.6934, "Cu": 63.546, "Zn": 65.38, "Ga": 69.723, "Ge": 72.630,
    "As": 74.921595, "Se": 78.971, "Br": 79.904, "Rb": 85.4678, "Sr": 87.62, "Y": 88.905838, "Zr": 91.224,
    "Nb": 92.90637, "Mo": 95.95, "Ru": 101.07, "Rh": 102.90549, "Pd": 106.42, "Ag": 107.8682, "Cd": 112.414,
    "In": 114.818, "Sn": 118.710, "Sb": 121.760, "Te": 127.60, "I": 126.90447, "Cs": 132.90545196, "Ba": 137.327,
    "La": 138.90547, "Ce": 140.116, "Pr": 140.90766, "Nd": 144.242, "Sm": 150.36, "Eu": 151.964, "Gd": 157.25,
    "Tb": 158.925354, "Dy": 162.500, "Ho": 164.930329, "Er": 167.259, "Tm": 168.934219, "Yb": 173.045,
    "Lu": 174.9668, "Hf": 178.486, "Ta": 180.94788, "W": 183.84, "Re": 186.207, "Os": 190.23, "Ir": 192.217,
    "Pt": 195.084, "Au": 196.966570, "Hg": 200.592, "Tl": 204.38, "Pb": 207.2, "Bi": 208.98040, "Th": 232.0377,
    "U": 238.02891,
}
# fmt: on

_TOKEN = re.compile(r"([A-Z][a-z]?)([1-9]\d*)?|(\()|(\))([1-9]\d*)?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%\s*(\S+)")


def _atoms(formula: str) -> Counter[str]:
    """Count the atoms of a formula with parentheses and at most a hydrate: ``NiSO4.6H2O``."""
    main, _, water = formula.replace("·", ".").partition(".")
    hydrate = re.fullmatch(r"([1-9]\d*)?H2O", water)
    if water and not hydrate:  # a decimal point, as in Li1.5O, must never be taken for a hydrate
        raise UnitError(f"formula {formula!r}: after the dot only a hydrate such as 6H2O is read")
    stack, at = [Counter[str]()], 0
    while token := _TOKEN.match(main, at):
        symbol, count, opens, closes, times = token.groups()
        at = token.end()
        if symbol:
            if symbol not in ATOMIC_WEIGHTS:
                raise UnitError(f"formula {formula!r}: no standard atomic weight of {symbol!r}")
            stack[-1][symbol] += int(count or 1)
        elif opens:
            stack.append(Counter())
        elif closes and len(stack) > 1:
            group = stack.pop()
            stack[-1].update({s: n * int(times or 1) for s, n in group.items()})
        else:
            raise UnitError(f"formula {formula!r}: a parenthesis is closed that was not opened")
    if at < len(main) or len(stack) > 1 or not stack[0]:
        raise UnitError(f"formula {formula!r}: not understood from {main[at:] or 'its end'!r}")
    if hydrate:
        molecules = int(hydrate[1] or 1)
        stack[0].update({"H": 2 * molecules, "O": molecules})
    return stack[0]


def molar_mass(formula: str) -> float:
    """Molar mass of a compound in g/mol, from standard atomic weights.

    Raises UnitError when the formula is not understood.
    """
    return math.fsum(n * ATOMIC_WEIGHTS[symbol] for symbol, n in _atoms(formula).items())


@lru_cache(maxsize=512)
def mass_fraction(element: str, compound: str) -> float:
    """Theoretical mass share of an element in a compound, dimensionless in (0, 1].

    Parameters
    ----------
    element : a symbol, or several joined by ``+`` (``"Nd+Pr"``)
    compound : a formula, or a mixture by mass: ``"75% Nd2O3 + 25% Pr6O11"``

    Raises
    ------
    UnitError when a formula is not understood, does not hold the element, or the shares of a
    mixture do not add up to 100 %.
    """
    if element == compound:
        return 1.0
    if "%" in compound:
        parts = [_SHARE.fullmatch(part.strip()) for part in compound.split("+")]
        shares = [(float(part[1]) / 100, part[2]) for part in parts if part]
        if len(shares) < len(parts) or not math.isclose(sum(share for share, _ in shares), 1, abs_tol=1e-9):
            raise UnitError(f"mixture {compound!r}: write shares that add up to 100 %, as '75% Nd2O3 + 25% Pr6O11'")
    else:
        shares = [(1.0, compound)]
    wanted = element.split("+")
    atoms = [(share, formula, _atoms(formula)) for share, formula in shares]
    absent = [symbol for symbol in wanted if not any(symbol in count for _, _, count in atoms)]
    if absent:
        raise UnitError(f"{compound!r} holds no {' and no '.join(map(repr, absent))}")
    return math.fsum(
        share * count[symbol] * ATOMIC_WEIGHTS[symbol] / molar_mass(formula)
        for share, formula, count in atoms
        for symbol in wanted
    )
