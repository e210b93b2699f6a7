"""Forecasts of reference prices and indices: which, with which model, and how that one has done.

Pure. ``forecasting`` makes and measures them and knows nothing of prices; what is published, whose rights allow it, and
what became of earlier forecasts is said here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

import forecasting
from forecasting import evaluation
from forecasting.candidates import BENCHMARK, DEFAULT
from forecasting.forecaster import DAILY_CLOSES
from forecasting.intervals import GRID, Array
from pricing.config import Forecasting, Methodology, Operation
from pricing.figures import Figures, MarketPrices
from pricing.reference import OBSERVED, Prices

Frequency = Literal["daily", "monthly"]
FREQUENCIES: tuple[Frequency, ...] = ("daily", "monthly")
SHOWN = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)  # quantiles in documents
PAST = {"daily": 20, "monthly": 12}  # earlier origins in a document …
AT = {"daily": (1, 5, 10, 20), "monthly": (1, 3, 6, 12)}  # … and their horizons
INFORMATION = (
    "an average whose daily closes are known is forecast from the last of them, its benchmark; what that gains over "
    "the averages alone is better information, not skill"
)
VERSION = 1  # raised when a forecast of the same series comes out otherwise


@dataclass(frozen=True)
class Subject:
    """A series that is forecast.

    Attributes
    ----------
    name : str
        Id of the index, or ``mineral/stage/zone``.
    kind : {"close", "average"}
        A price of a day, or a mean over a month: each has a benchmark of its own.
    y : Series, by period
        Observed values; NaN where there was none, or an estimate of ours.
    closes : Series, by day, or None
        Daily values whose mean over a month ``y`` is.
    unit : str
    of : str
        What is forecast, in words.
    method : str
        Hash of the methodology that made the figures: forecasts of another method's are of another series.
    """

    name: str
    frequency: Frequency
    kind: Literal["close", "average"]
    y: pd.Series
    closes: pd.Series | None
    unit: str
    of: str
    method: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Name and frequency."""
        return self.name, self.frequency


# ---------------------------------------------------------------------------------- what is forecast


def subjects(figures: Figures, operation: Operation, audience: str, methodology: Methodology) -> list[Subject]:
    """List what is forecast for an audience.

    In public only what rests on sources whose terms allow forecasts to be published; all quotations of a market
    count, whether or not they made its last price.
    """
    rules, owner = methodology.forecasts, operation.source_of()
    if rules is None:
        return []

    def allowed(market: MarketPrices) -> bool:
        made = [p for p in (market.daily, market.ten_day, market.monthly) if p is not None]
        sources = {owner[s.id] for p in made for s in p.quotes.series if p.quotes.usd_per_t[s.id].notna().any()}
        return audience != "public" or all(operation.sources[name].rights.forecast for name in sources)

    open_ = {key for key, market in figures.prices.items() if allowed(market)}
    # what was estimated from a linked market rests on its sources too
    open_ = {key for key in open_ if not (link := figures.prices[key].market.linked) or link in open_}
    out = []
    for key, market in figures.prices.items():
        if key in open_:
            out += list(_of_market(key, market, rules))
    for name, basket in figures.baskets.items():
        members = {str(m) for index in basket.indices.values() for m in index.weights.columns}
        if members <= open_:
            frames = {f: basket.indices[f].frame["unrounded"] for f in FREQUENCIES if f in basket.indices}
            for frequency, y in frames.items():
                if frequency in rules.horizons:
                    closes = frames.get("daily") if frequency == "monthly" else None
                    kind: Literal["close", "average"] = "average" if frequency == "monthly" else "close"
                    unit = f"index, {methodology.baskets[name].base_period} = 100"
                    out.append(Subject(name, frequency, kind, y, closes, unit, f"the index {name}"))
    return [replace(one, method=methodology.sha256) for one in out if one.y.notna().any()]


def _of_market(key: str, market: MarketPrices, rules: Forecasting) -> Iterator[Subject]:
    unit = market.market.unit
    daily = _observed(market.daily.frame) if market.daily is not None else None
    if daily is not None and not _is_daily(daily):
        daily = None  # quoted by the week: a period ahead would be a week, not a weekday
    if daily is not None and "daily" in rules.horizons:
        yield Subject(key, "daily", "close", daily, None, unit, _called(market.daily, "price of a day"))
    if len(market.months) and "monthly" in rules.horizons:
        of = _called(market.monthly if daily is None else market.daily, "average of a month")
        yield Subject(key, "monthly", "average", _observed(market.months), daily, unit, of)


def _is_daily(y: pd.Series) -> bool:
    """Whether most observations follow each other by one weekday."""
    days = y.dropna().index.to_numpy().astype("datetime64[D]")
    return len(days) < 2 or float(np.median(np.busday_count(days[:-1], days[1:]))) <= 1


def _observed(frame: pd.DataFrame) -> pd.Series:
    return frame["unrounded"].where(frame["type"].isin(OBSERVED)).astype("float64")


def _called(made: Prices | None, what: str) -> str:
    """Call a forecast of an assessment by its name: it says what will be assessed, not what can be dealt at."""
    tiers = {s.tier for s in made.quotes.series} if made is not None else set()
    if tiers & {"transaction", "committed"}:
        return f"the reference {what}"
    return f"the {'official' if tiers == {'official'} else 'assessed'} {what}: what will be published, not a market"


# ------------------------------------------------------------------------------------- forecasts


@dataclass(frozen=True)
class Outlook:
    """What is published of one series, or why nothing is.

    ``current`` is plain data, as it stands in the document; ``finding`` says what went wrong.
    """

    subject: Subject
    current: dict[str, Any] | None
    tested: Mapping[str, Any] | None = None
    finding: str = ""


def outlook(
    subject: Subject, rules: Forecasting, tested: Mapping[str, Any] | None, before: Sequence[Mapping[str, Any]]
) -> Outlook:
    """Forecast one series with what its last review decided; the benchmark where there was none.

    The benchmark of an average whose daily closes are known is what these say. A series whose content and settings are
    those of an earlier forecast takes that one over. A fit that fails gives the random walk and a finding.

    Parameters
    ----------
    tested : mapping or None
        As ``backtest`` returns it.
    before : sequence of mapping
        Forecasts published earlier, as they stood in their documents.
    """
    tested = tested if tested is not None and tested.get("tests") == _tests(subject, rules) else None
    adopted = tested is not None and tested["decision"]["published"] == "model"
    model = None if adopted or subject.closes is not None else BENCHMARK[subject.kind]
    content = _content(subject, rules, model)
    for old in reversed(before):
        if old.get("content") == content and not old.get("failed"):
            return Outlook(subject, {k: v for k, v in old.items() if k != "release"}, tested)
    horizon = rules.horizons[subject.frequency]
    try:
        made = _forecast(subject, subject.y, horizon, rules.levels, model, subject.closes)
    except Exception as error:  # one series must not keep the release from being made
        finding = f"{subject.name} {subject.frequency}: {model or 'the model'} failed: {error}"
        try:
            made = forecasting.forecast(subject.y, horizon, rules.levels, kind=subject.kind, model="random-walk")
        except forecasting.ForecastError as none:
            return Outlook(subject, None, tested, str(none))
        return Outlook(subject, _shown(subject, made, content) | {"failed": True}, tested, finding)
    return Outlook(subject, _shown(subject, made, content), tested)


def _forecast(
    subject: Subject, y: pd.Series, horizon: int, levels: Sequence[int], model: str | None, closes: pd.Series | None
) -> forecasting.Forecast:
    """Forecast; an average whose closes do not serve at its origin by the benchmark of averages alone."""
    made = forecasting.forecast(y, horizon, levels, kind=subject.kind, model=model, closes=closes)
    if closes is None or made.model == DAILY_CLOSES:
        return made
    alone = forecasting.forecast(y, horizon, levels, kind=subject.kind, model=BENCHMARK[subject.kind])
    reason = made.why.partition("its daily closes do not serve: ")[2]
    why = "the benchmark of averages" + (f"; its daily closes do not serve: {reason}" if reason else f"; {made.why}")
    return replace(alone, why=why)


def _tests(subject: Subject, rules: Forecasting) -> dict[str, Any]:
    """What a test is of: a decision on anything else says nothing of this forecast."""
    model = DAILY_CLOSES if subject.closes is not None else DEFAULT[subject.kind]
    horizon, levels = rules.horizons[subject.frequency], list(rules.levels)
    return {"method": subject.method, "unit": subject.unit, "model": model, "horizon": horizon, "levels": levels}


def _content(subject: Subject, rules: Forecasting, model: str | None) -> str:
    """Hash of all that a forecast follows from."""
    settings = (VERSION, subject.key, subject.kind, subject.unit, subject.method, model, rules.levels, rules.horizons)
    digest = hashlib.sha256(repr(settings).encode())
    for part in (subject.y, subject.closes):
        if part is not None:
            digest.update("".join(map(str, part.index)).encode())
            digest.update(part.to_numpy(dtype="float64").tobytes())
    return digest.hexdigest()


def _shown(subject: Subject, made: forecasting.Forecast, content: str) -> dict[str, Any]:
    last = str(subject.y.dropna().index[-1])
    periods = ahead(last, len(made.median), subject.frequency)
    rows = []
    for h, period in zip(made.median.index.tolist(), periods, strict=True):
        row = {"horizon": h, "period": period, "median": _six(made.median[h]), "mean": _six(made.mean[h])}
        rows.append(row | {str(name): _six(made.bounds.at[h, name]) for name in made.bounds.columns})
    return {
        "origin": last,
        "unit": subject.unit,
        "method": subject.method,
        "last": _six(float(subject.y.dropna().iloc[-1])),
        "model": made.model,
        "why": made.why,
        "benchmark": made.benchmark if made.model != DAILY_CLOSES else DAILY_CLOSES,
        "horizons": rows,
        "probabilities": list(SHOWN),
        "quantiles": [[_six(made.quantiles.at[h, p]) for p in SHOWN] for h in made.median.index],
        "content": content,
    }


def _six(value: Any) -> float:
    """Six significant digits: more of a forecast would be noise."""
    return float(f"{float(value):.6g}")


def ahead(origin: str, count: int, frequency: Frequency) -> list[str]:
    """Return the next months, or the next weekdays: holidays of markets are not known in advance here."""
    if frequency == "monthly":
        return [str(pd.Period(origin, "M") + h) for h in range(1, count + 1)]
    start = np.datetime64(origin, "D")
    return [str(np.busday_offset(start, h, roll="backward")) for h in range(1, count + 1)]


# -------------------------------------------------------------------------------------- backtests


def history(
    subject: Subject, shown: Iterable[tuple[str, str, float | None]]
) -> tuple[pd.DataFrame, dict[str, pd.Timestamp]]:
    """Lay out what was known when.

    What a release showed has its instant. What the first release showed already is taken to have been known at the end
    of its own period, since no earlier release can tell.

    Parameters
    ----------
    shown : iterable of (period, instant, value)
        As ``pricing.published.vintages`` returns them; may be empty.

    Returns
    -------
    DataFrame
        Columns ``period, vintage, value``; NaN for a withdrawal.
    known : mapping of period to the instant at which it was first known
    """
    standing = set(subject.y.dropna().index)  # what is masked now, as judged or estimated, was never observed
    rows = [(p, pd.Timestamp(at), math.nan if v is None else v) for p, at, v in shown if p in standing]
    first = min((at for _, at, _ in rows), default=None)
    out = [(p, min(_end(p), at) if at == first else at, v) for p, at, v in rows]
    told = {p for p, _, _ in out}
    out += [
        (p, _end(p), v)
        for p, v in zip(subject.y.index.tolist(), subject.y.tolist(), strict=True)
        if p not in told and not math.isnan(v)
    ]
    frame = pd.DataFrame(out, columns=["period", "vintage", "value"])
    known: dict[str, pd.Timestamp] = {}
    for period, at, value in out:
        if not math.isnan(value) and (period not in known or at < known[period]):
            known[period] = at
    return frame, known


def _end(period: str) -> pd.Timestamp:
    return pd.Period(period, "M" if len(period) == 7 else "D").end_time.floor("us").tz_localize("UTC")


def backtest(
    subject: Subject,
    rules: Forecasting,
    shown: Iterable[tuple[str, str, float | None]],
    before: Mapping[str, Any] | None,
    today: str,
    closes_shown: Iterable[tuple[str, str, float | None]] = (),
) -> dict[str, Any] | None:
    """Measure the default model against the benchmark on rolling origins, and decide which is published.

    Parameters
    ----------
    shown, closes_shown : iterable
        As for ``history``, of the series and of its closes: each origin sees what was known then, and nothing later.
    before : mapping or None
        The last backtest.
    today : str
        ISO day.

    Returns
    -------
    dict or None
        Plain data: ``record`` by horizon, ``skill``, ``test``, ``decision``, ``origins``, ``as_known`` (origins after
        the first release, whose vintages are those of releases). None where the series is too short for any origin.
    """
    frequency, horizon = subject.frequency, rules.horizons[subject.frequency]
    shown = list(shown)
    frame, known = history(subject, shown)
    observed = [p for p in subject.y.index if p in known]
    # one origin for each instant: what one release showed first was known at once
    latest = {known[p]: p for p in observed}
    candidates = [p for p in observed[rules.first[frequency] - 1 : -1] if latest[known[p]] == p]
    chosen = candidates[:: -rules.step[frequency]][::-1][-rules.most_origins :]
    if not chosen:
        return None
    benchmark = BENCHMARK[subject.kind]
    grid = sorted({*GRID, *(round(t, 12) for n in rules.levels for t in _tails(n))})
    actual, model, base, scale = [], [], [], []
    calendar = pd.Index(subject.y.index)
    instants = [known[p] for p in chosen]
    closes_frame = None
    if subject.closes is not None:
        daily = replace(subject, frequency="daily", y=subject.closes, closes=None)
        closes_frame = history(daily, closes_shown)[0].sort_values(["period", "vintage"], kind="stable")
    for origin in evaluation.rolling_origins(frame, instants, horizon, periods=calendar):
        y = origin.series
        closes = None
        if closes_frame is not None:
            then = closes_frame[closes_frame["vintage"] <= max(origin.vintage, _end(str(y.index[-1])))]
            closes = then.groupby("period")["value"].last()
            closes = closes[closes.index <= _last_day(str(y.index[-1]))]
        scale.append(abs(float(y.dropna().iloc[-1])))
        actual.append(origin.outcome.to_numpy())
        try:
            ours = _forecast(subject, y, horizon, rules.levels, None, closes)
            theirs = forecasting.forecast(y, horizon, rules.levels, kind=subject.kind, model=benchmark)
            served = closes is None or ours.model == DAILY_CLOSES
        except forecasting.ForecastError:
            served = False
        # an origin without a forecast keeps its place, so that the others keep their distance
        absent = np.full((horizon, len(grid)), np.nan)
        model.append(_on(ours, grid) if served else absent)
        base.append(_on(theirs, grid) if served else absent)
    made_at = [not np.isnan(one).all() for one in model]
    if not any(made_at):
        return None if subject.closes is None else backtest(replace(subject, closes=None), rules, shown, before, today)
    kept = [(p, at) for p, at, good in zip(chosen, instants, made_at, strict=True) if good]
    made = evaluation.record(
        np.array(actual), np.array(model), np.array(base), grid, scale=np.array(scale),
        step=rules.step[frequency], levels=rules.levels,
    )  # fmt: skip
    adopt = evaluation.Rules(rules.enter, rules.leave, rules.least_origins, rules.review_months)
    tests = _tests(subject, rules)
    old = evaluation.Decision(**before["decision"]) if before and before.get("tests") == tests else None
    decision = evaluation.decide(old, made, adopt, today)
    if subject.closes is not None:
        decision = evaluation.Decision("benchmark", decision.since, today, INFORMATION)
    releases = {at for _, at, _ in shown}
    first = min(map(pd.Timestamp, releases), default=None)
    return {
        "model": tests["model"],
        "tests": tests,
        "benchmark": benchmark,
        "skill_is": "information" if subject.closes is not None else "skill",
        "origins": len(kept),
        "as_known": sum(first is not None and at > first for _, at in kept),
        "first_origin": kept[0][0],
        "last_origin": kept[-1][0],
        "skill": _estimate(made.skill),
        "p_value": _number(made.test.p_value) if made.test else None,
        "record": [
            {"horizon": h, **{str(k).replace("_", "-"): _number(v) for k, v in row.items()}}
            for h, row in enumerate(made.by_horizon.to_dict("records"), start=1)
        ],
        "decision": {k: getattr(decision, k) for k in ("published", "since", "reviewed", "why")},
        "tested_on": today,
    }


def _last_day(period: str) -> str:
    return str(_end(period).date())


def _tails(level: float) -> tuple[float, float]:
    tail = (50 - level / 2) / 100
    return tail, 1 - tail


def _on(made: forecasting.Forecast, grid: Sequence[float]) -> Array:
    """Quantiles of a forecast on a grid that its own and the tails of its bounds make up: (horizon, p)."""
    columns = {round(float(p), 12): made.quantiles[p].to_numpy() for p in made.quantiles.columns}
    for name in made.bounds.columns:
        side, level = str(name).split("-", 1)
        tail = round(_tails(float(level))[0 if side == "lo" else 1], 12)
        columns.setdefault(tail, made.bounds[name].to_numpy())
    return np.column_stack([columns[round(p, 12)] for p in grid])


def _estimate(found: Any) -> dict[str, Any]:
    return {"value": _number(found.value), "error": _number(found.error), "origins": int(found.origins)}


def _number(value: Any) -> float | None:
    found = float(value)
    return None if math.isnan(found) or math.isinf(found) else float(f"{found:.6g}")


# ----------------------------------------------------------------------------- what became of them


def past(subject: Subject, before: Sequence[Mapping[str, Any]], levels: Sequence[int]) -> list[dict[str, Any]]:
    """Set the forecasts published earlier beside what happened: the first one of each origin, newest origin first.

    What happened is the value as it stands now. Forecasts of figures that another method or unit made are left out.
    """
    value = subject.y.to_dict()
    firsts: dict[str, Mapping[str, Any]] = {}
    for one in before:
        if (one.get("unit"), one.get("method")) == (subject.unit, subject.method):
            firsts.setdefault(one["origin"], one)
    out = []
    for origin, one in sorted(firsts.items(), reverse=True):
        rows = []
        for row in one["horizons"]:
            seen = value.get(row["period"], math.nan)
            if not math.isnan(seen):
                inside = {
                    f"inside-{n}": bool(row[f"lo-{n}"] <= seen <= row[f"hi-{n}"]) for n in levels if f"lo-{n}" in row
                }
                rows.append({**row, "happened": _six(seen), **inside})
        if rows:
            out.append({"origin": origin, "release": one["release"], "model": one["model"], "horizons": rows})
    return out


def scored(told: Sequence[Mapping[str, Any]], levels: Sequence[int]) -> list[dict[str, Any]]:
    """Say by horizon how often published bounds held what happened.

    Returns
    -------
    list of dict
        ``horizon``, ``forecasts`` (scored), ``covered-80`` … [share], ``error`` [mean absolute, as a share].
    """
    by: dict[int, list[Mapping[str, Any]]] = {}
    for one in told:
        for row in one["horizons"]:
            by.setdefault(int(row["horizon"]), []).append(row)
    out = []
    for horizon, rows in sorted(by.items()):
        errors = [abs(r["median"] / r["happened"] - 1) for r in rows if r["happened"]]
        line: dict[str, Any] = {"horizon": horizon, "forecasts": len(rows)}
        for n in levels:
            held = [r[f"inside-{n}"] for r in rows if f"inside-{n}" in r]
            line[f"covered-{n}"] = _number(np.mean(held)) if held else None
        out.append(line | {"error": _number(np.mean(errors)) if errors else None})
    return out


def backtests(
    listed: Sequence[Subject],
    rules: Forecasting,
    shown: Callable[[str, str], list[tuple[str, str, float | None]]],
    before: Mapping[tuple[str, str], Mapping[str, Any]],
    today: str,
) -> Iterator[Callable[[], dict[str, Any] | None]]:
    """Yield one call for each series, to be made in any order and in any process."""
    for subject in listed:
        closes = shown(subject.name, "daily") if subject.closes is not None else []
        yield _Task(subject, rules, shown(*subject.key), before.get(subject.key), today, closes)


@dataclass(frozen=True)
class _Task:
    subject: Subject
    rules: Forecasting
    shown: list[tuple[str, str, float | None]]
    before: Mapping[str, Any] | None
    today: str
    closes: list[tuple[str, str, float | None]]

    def __call__(self) -> dict[str, Any] | None:
        try:
            return backtest(self.subject, self.rules, self.shown, self.before, self.today, self.closes)
        except Exception as error:  # one series must not lose the tests of all others
            return {"failed": f"{self.subject.name} {self.subject.frequency}: the backtest failed: {error!r}"}
