"""What a year of all tariff codes costs, and one more month on six years: read, stored, judged, summed."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import ROOT, Line, Result, cpu_of
from pricing import cells, trade
from pricing.config import Code, Methodology, Source, load_methodology, load_operation
from pricing.declarations import COLUMNS, Declared, Scope
from pricing.imports import import_index
from pricing.sources import comext
from pricing.sources.comext_cells import EU27
from pricing.store import Store

REPORTERS = {"CN8": EU27, "HTS10": ("US",)}
PARTNERS = (
    "CN", "AE", "AR", "AU", "BO", "BR", "CA", "CD", "CH", "CL", "CO", "GB", "ID", "IN", "JP", "KR", "KZ", "MX", "MY",
    "NO", "PE", "PH", "RU", "TH", "TR", "UA", "US", "VN", "ZA", "ZM",
)  # fmt: skip
YEARS = 6
AIM_YEAR, AIM_MONTH = 60.0, 5.0
SEED = 20_261_123
STAMP = "ESTAT:DS-045409(1.0),15/09/26 11:00:00"
HEAD = "DATAFLOW,LAST UPDATE,freq,reporter,partner,product,flow,indicators,TIME_PERIOD,OBS_VALUE\n"


def made(codes: tuple[Code, ...], months: pd.Index, share: float) -> dict[str, pd.DataFrame]:
    """Cells of every code, by tariff: a share of what could be, a walk of prices, one mass in a hundred wrong."""
    out, rng = {}, np.random.default_rng(SEED)
    for system, reporters in REPORTERS.items():
        parts = []
        for code in (c for c in codes if c.system == system):
            valid = np.array([code.valid(m) for m in months])
            price = 10 * np.exp(rng.normal(0, 1) + np.cumsum(rng.normal(0, 0.05, len(months))))
            pairs = len(reporters) * len(PARTNERS)
            quality = rng.normal(0, 0.3, pairs)
            busy = rng.beta(0.25, 0.25 / share - 0.25, pairs)  # most pairs trade seldom, a few always
            row, pair = np.nonzero((rng.random((len(months), pairs)) < busy) & valid[:, None])
            kg = np.exp(rng.normal(8.0, 2.0, len(row)))
            value = kg * price[row] * np.exp(quality[pair] + rng.normal(0, 0.2, len(row)))
            kg = 100 * np.ceil(kg * np.where(rng.random(len(row)) < 0.01, 10.0, 0.01))
            columns = (
                np.full(len(row), code.code), np.array(reporters)[pair // len(PARTNERS)],
                np.array(PARTNERS)[pair % len(PARTNERS)], np.array(months)[row], np.ceil(value), kg,
                np.full(len(row), "normal"),
            )  # fmt: skip
            parts.append(pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))))
        out[system] = pd.concat(parts, ignore_index=True)
    return out


def documents(known: pd.DataFrame, per_document: int) -> Iterator[tuple[Scope, bytes]]:
    """The same as the office answers, by year and some codes."""
    years = known["period"].str[:4]
    for year in sorted(years.unique()):
        of_year = known[years == year]
        codes = sorted(of_year["code"].unique())
        for k in range(0, len(codes), per_document):
            some = codes[k : k + per_document]
            lines = [
                f"{STAMP},M,{r.reporter},{r.partner},{r.code},1,{what},{r.period},{number}\n"
                for r in of_year[of_year["code"].isin(some)].itertuples()
                for what, number in (("VALUE_IN_EUROS", round(r.value)), ("QUANTITY_IN_100KG", round(r.kg / 100)))
            ]
            yield Scope(tuple(some), f"{year}-01", f"{year}-12"), (HEAD + "".join(lines)).encode()


def figures(known: Mapping[str, pd.DataFrame], sources: Mapping[str, Source], method: Methodology) -> None:
    """All that a release makes of cells."""
    assert method.trade is not None
    parts, systems = [], {}
    for name, some in known.items():
        customs = sources[name].customs
        assert customs is not None
        mine = [c for c in method.codes if c.system == customs.system]
        rate = pd.Series(1.1, index=pd.Index(some["period"].unique()))
        parts.append(trade.prepared(some, mine, customs.model_copy(update={"china": "CN"}), rate))
        systems[customs.origin] = customs.system
    found = trade.indicators(trade.judged(pd.concat(parts), method.trade), method.codes, systems, method.trade)
    for rule in method.imports.values():
        for origin in systems:
            import_index(found, origin, rule, method.trade.geks_window)


class Life:
    """A store that documents come into, one vintage after the other."""

    def __init__(self, store: Store, source: Source, method: Methodology) -> None:
        self.store, self.source = store, source
        self.codes = [c for c in method.codes if c.system == "CN8"]
        self.at = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)

    def comes(self, scope: Scope, raw: bytes) -> tuple[float, float]:
        """Read and store one document. Returns CPU seconds of each."""
        declared: list[Declared] = []
        reading = cpu_of(lambda: declared.append(comext.declarations(raw, self.codes, self.source)))
        self.at += dt.timedelta(seconds=1)
        url = f"{scope.codes[0]}/{scope.first}"

        def store() -> None:
            number = self.store.add_document(
                "comext", self.at.isoformat(), url=url, retrieved_at=self.at, size=len(raw)
            )
            cells.append(self.store, number, "comext", self.at, declared[0], url=url, register="r", scope=scope)

        return reading, cpu_of(store)


def run() -> Result:
    """Each once: a spread would take many minutes."""
    method, operation = load_methodology(ROOT / "methodology"), load_operation(ROOT / "config.toml")
    months = pd.period_range("2020-01", periods=12 * YEARS, freq="M").strftime("%Y-%m")
    result = Result("Customs cells of all codes into figures")
    for share in (0.2, 0.05):
        whole = made(method.codes, months, share)
        year = {name: some[some["period"] >= months[-12]] for name, some in whole.items()}
        before = whole["CN8"][whole["CN8"]["period"] < months[-1]]
        for title, first, then, aim in (
            ("one year", year["CN8"][:0], year, AIM_YEAR),
            (f"one more month on {YEARS} years", before, whole, AIM_MONTH),
        ):
            spent = _spent(first, year["CN8"], then["HTS10"], operation.sources, method)
            total = sum(spent.values())
            n = len(then["CN8"])
            what = f"{title}, {share:.0%} of the cells"
            result.lines.append(Line(what, f"{total:.1f} s", f"{n:,} cells", "", f"≤ {aim:.0f} s", total <= aim))
            result.lines.extend(Line(f"  {part}", f"{seconds:.1f} s") for part, seconds in spent.items())
    result.notes = [
        f"{len(method.codes)} codes, {len(EU27)} reporters and one, {len(PARTNERS)} partners; parsed and stored: the "
        "European cells. What is published of one large partner fills about a tenth of its cells.",
        "One more month: the answers of its whole year come again, as the office gives them; figures of all years.",
    ]
    return result


def _spent(
    before: pd.DataFrame,
    year: pd.DataFrame,
    census: pd.DataFrame,
    sources: Mapping[str, Source],
    method: Methodology,
) -> dict[str, float]:
    """CPU seconds of a year's documents on what is stored before, and of all figures."""
    source = sources["comext"]
    assert source.customs is not None
    size = source.customs.codes_per_request
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.db") as store:
        life = Life(store, source, method)
        for document in documents(before, size):
            life.comes(*document)
        parse, keep = map(sum, zip(*(life.comes(*document) for document in documents(year, size)), strict=True))
        known = {"census": census}
        reading = cpu_of(lambda: known.update(comext=cells.known(store, "comext")))
        making = cpu_of(lambda: figures(known, sources, method))
    return {"parse": parse, "store": keep, "read back": reading, "judge, sum, index": making}
