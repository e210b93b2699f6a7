"""Customs cells made from known prices: what an indicator should have said is known to the last digit.

One product, imported by the European Union (several reporters) and the United States (one), from China
and from some other partners. What is lasting: the quality of each reporter and partner. What moves: prices
(a random walk with two shocks), and who delivers how much. What is wrong: masses in the wrong unit, tiny
lots of another quality, cells without a mass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.config import Code, Customs
from pricing.declarations import COLUMNS

Floats = npt.NDArray[np.float64]

CODES = (
    Code(system="CN8", code="81101000", mineral="antimony", stage="metal", element="Sb", title="Antimony",
         units=("KG",), content=1.0, certainty="confirmed", source="made"),
    Code(system="HTS10", code="8110100000", mineral="antimony", stage="metal", element="Sb", title="Antimony",
         units=("KG",), content=1.0, certainty="confirmed", source="made"),
)  # fmt: skip
SYSTEMS = {"eu": "CN8", "us": "HTS10"}
CUSTOMS = {
    "eu": Customs(system="CN8", origin="eu", title="European Union", currency="EUR", valuation="cif", china="CN",
                  since="2020"),
    "us": Customs(system="HTS10", origin="us", title="United States", currency="USD", valuation="customs value",
                  china="5700", since="2020"),
}  # fmt: skip
PARTNERS = {
    "eu": ("CN", "BO", "KG", "RU", "TJ", "TR", "VN"),
    "us": ("5700", "3350", "4635", "4621", "4642", "4890", "5520"),
}
REPORTERS = {"eu": ("BE", "DE", "ES", "FR", "IT", "NL", "PL"), "us": ("US",)}
MISTAKES = (1000.0, 10.0, 2.2046)


@dataclass(frozen=True)
class Kind:
    """What a world is like. Spreads are standard deviations of logarithms."""

    months: int = 72
    walk: float = 0.04  # of prices, by month
    partner_quality: float = 0.25
    pair_quality: float = 0.10  # of a reporter and partner, beside the partner's
    shipment_price: float = 0.12
    shipment_size: float = 1.0
    share_walk: float = 0.12  # of a partner's share, by month
    tonnes: Mapping[str, float] = field(default_factory=lambda: {"eu": 250.0, "us": 120.0})  # of a leg and month
    shipment_tonnes: float = 6.0
    tiny: float = 0.05  # share of possible cells to which a lot of a few kilograms is added
    mistakes: float = 0.01  # share of cells whose mass is in a wrong unit
    no_mass: float = 0.05  # share of cells without a mass: zero, missing or confidential
    silent: float = 0.02  # share of months in which a pair's papers are lost
    shocks: bool = True


@dataclass(frozen=True)
class World:
    """Cells as the offices declare them, and what is true.

    Attributes
    ----------
    cells : mapping of origin to DataFrame
        As ``pricing.declarations`` lays them out.
    usd : Series by month
        USD per euro.
    truth : mapping of (origin, leg) to DataFrame by month
        ``price`` (of the leg's lasting average quality), ``of_mix`` (of the quality that came in the
        month) and ``tonnes`` that truly came.
    marks : mapping of origin to DataFrame
        Beside ``cells``, row by row: ``factor`` by which the mass is wrong (1: right), ``tiny`` (there
        is nothing else in the cell), ``move`` (logarithm of the true price over its median of the year before).
    shocks : tuple of month
        First months of the two shocks.
    """

    cells: Mapping[str, pd.DataFrame]
    usd: pd.Series
    truth: Mapping[tuple[str, str], pd.DataFrame]
    marks: Mapping[str, pd.DataFrame]
    shocks: tuple[int, int]

    def windowed(self, origin: str, leg: str, window: int, of: str = "price") -> pd.Series:
        """What the figure over a window should be: mean of true prices, weighted by the tonnes that came.

        Of the leg's average quality, not of the quality that happened to come: who reads the figure as
        evidence of a price wants the price, and takes a change of mix for an error; and so do we. Weighted
        by tonnes, because a ratio of sums says at what price the tonne of the window came on average: the
        plain mean of three months would blame it for when the ships arrived.
        """
        one = self.truth[origin, leg]
        value = (one[of] * one["tonnes"]).rolling(window).sum()
        return value / one["tonnes"].rolling(window).sum()


def world(seed: int, kind: Kind | None = None) -> World:
    """Make a world."""
    kind = kind or Kind()
    rng = np.random.default_rng(seed)
    months = pd.period_range("2020-01", periods=kind.months, freq="M").strftime("%Y-%m")
    shocks = (int(kind.months * rng.uniform(0.36, 0.43)), int(kind.months * rng.uniform(0.69, 0.76)))
    prices = _prices(rng, kind, shocks)
    usd = pd.Series(1.1 * np.exp(np.cumsum(rng.normal(0, 0.01, kind.months))), index=months)
    cells, marks, truth = {}, {}, {}
    for origin in CUSTOMS:
        parts, notes = [], []
        for leg, price in prices.items():
            partners = [p for p in PARTNERS[origin] if (p == CUSTOMS[origin].china) == (leg == "CN")]
            rows, mark, truth[origin, leg] = _leg(rng, kind, origin, partners, price, months)
            parts.append(rows)
            notes.append(mark)
        cells[origin], marks[origin] = pd.concat(parts, ignore_index=True), pd.concat(notes, ignore_index=True)
        if origin == "eu":
            cells[origin]["value"] = (cells[origin]["value"] / cells[origin]["period"].map(usd)).round()
    return World(cells, usd, truth, marks, shocks)


def _over(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _prices(rng: np.random.Generator, kind: Kind, shocks: tuple[int, int]) -> dict[str, Floats]:
    """USD per tonne of a leg's average quality, by month."""
    common = np.cumsum(rng.normal(0, kind.walk, kind.months))
    out = {}
    for leg, up in (("CN", np.log(4.0)), ("XCN", np.log(2.0))):
        own = np.cumsum(rng.normal(0, kind.walk / 2, kind.months))
        moved = np.zeros(kind.months)
        if kind.shocks:
            for first, size in ((shocks[0], up), (shocks[1], np.log(0.5))):
                moved[first] += size / 2
                moved[first + 1] += size / 2
        out[leg] = 12_000 * np.exp(common + own + np.cumsum(moved))
    return out


def _leg(
    rng: np.random.Generator, kind: Kind, origin: str, partners: list[str], price: Floats, months: pd.Index
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Cells of one leg, what is wrong with each, and the truth."""
    pairs = [(r, p) for r in REPORTERS[origin] for p in partners]
    which = np.array([partners.index(p) for _, p in pairs])
    quality = np.exp(
        rng.normal(0, kind.partner_quality, len(partners))[which] + rng.normal(0, kind.pair_quality, len(pairs))
    )
    wanders = rng.normal(0, kind.share_walk, (len(months), len(partners)))
    wanders[0] = rng.normal(0, 0.7, len(partners))
    weight = rng.normal(0, 0.8, len(pairs)) + np.cumsum(wanders, axis=0)[:, which]
    share = np.exp(weight) / np.exp(weight).sum(axis=1, keepdims=True)
    n = rng.poisson(kind.tonnes[origin] * share / kind.shipment_tonnes) * (rng.random(share.shape) >= kind.silent)
    of = np.repeat(np.arange(n.size), n.ravel())
    size = kind.shipment_tonnes * np.exp(rng.normal(-(kind.shipment_size**2) / 2, kind.shipment_size, len(of)))
    each = (price[:, None] * quality).ravel()[of] * np.exp(rng.normal(0, kind.shipment_price, len(of)))
    tonnes, value = np.zeros(n.size), np.zeros(n.size)
    np.add.at(tonnes, of, size)
    np.add.at(value, of, size * each)
    came = tonnes.reshape(n.shape)
    lasting = float((came * quality).sum() / came.sum())
    in_month = price * _over((came * quality).sum(axis=1), came.sum(axis=1))
    truth = pd.DataFrame({"price": price * lasting, "of_mix": in_month, "tonnes": came.sum(axis=1)}, index=months)
    tiny = rng.random(n.size) < kind.tiny
    lot = rng.uniform(0.001, 0.02, n.size) * tiny
    dear = (price[:, None] * quality).ravel() * np.exp(rng.uniform(np.log(3), np.log(20), n.size))
    there = (n.ravel() > 0) | tiny
    factor = np.where(
        rng.random(n.size) < kind.mistakes,
        rng.choice(MISTAKES, n.size) ** rng.choice([-1.0, 1.0], n.size),
        1.0,
    )
    kg = np.round((tonnes + lot) * 1000 * factor)
    status = np.full(n.size, "normal", dtype=object)
    fate = rng.random(n.size) / max(kind.no_mass, 1e-12)
    kg[fate < 0.4] = 0.0
    status[(fate >= 0.4) & (fate < 0.7)] = "no-quantity"
    status[(fate >= 0.7) & (fate < 1.0)] = "confidential"
    kg[status != "normal"] = np.nan
    row, column = (a.ravel() for a in np.indices(n.shape))
    table = dict(
        zip(COLUMNS, (
            np.full(n.size, next(c.code for c in CODES if c.system == SYSTEMS[origin])),
            np.array([r for r, _ in pairs])[column], np.array([p for _, p in pairs])[column], np.array(months)[row],
            value + lot * dear, kg, status,
        ), strict=True)
    )  # fmt: skip
    logs = pd.Series(np.log(price))
    move = (logs - logs.shift(1).rolling(12, min_periods=3).median()).to_numpy()
    mark = pd.DataFrame({"factor": factor, "tiny": n.ravel() == 0, "move": move[row]})
    return pd.DataFrame(table)[there].reset_index(drop=True), mark[there].reset_index(drop=True), truth
