"""Translates a golden case of an index number into calls of the project's public functions.

``METHODS`` are those that Lodemark offers.
"""

from __future__ import annotations

from typing import get_args

import pandas as pd

from pricing import aggregation, chaining, formulas, imputation, multilateral
from pricing.panels import FixedBaseIndex, Panel


def compute(case):
    """One value for each of the case's keys, None where null."""
    found = METHODS[case["method"]](case, case["params"])
    return [None if pd.isna(value := found.get(key)) else float(value) for key in case["expected"]["keys"]]


def frames(case, column="price"):
    data = pd.DataFrame(case["data"])
    table = data.pivot(index="period", columns="product", values=column).astype("float64")
    return table.reindex(index=case["periods"], columns=case["products"])


def panel_of(case):
    return Panel(frames(case), frames(case, "quantity") if "quantity" in case["data"] else None)


def series(case, name="value"):
    return pd.Series(case["data"][name], index=case["data"]["period"], dtype="float64")


def flat_weights(case):
    return pd.Series(case["weights"]["weight"], index=case["weights"]["product"], dtype="float64")


def yearly_weights(case):
    return pd.DataFrame(case["weights"]).pivot(index="period", columns="product", values="weight")


def bilateral(case, params, panel=None):
    panel, basket = panel or panel_of(case), None
    if case["method"] in ("lowe", "young"):
        period = params["weight_period"]
        basket = panel.quantities.loc[period]
        basket = basket if case["method"] == "lowe" else basket * panel.prices.loc[period]
    if params.get("chain"):
        return chaining.chain(formulas.period_on_period(panel, case["method"], basket), params["base"]).values
    return formulas.fixed_base(panel, case["method"], params["base"], basket).values


def geks(case, params):
    panel, splice = panel_of(case), params["splice"]
    if splice is None:
        return multilateral.geks(panel, params["bilateral"]).values
    windows = multilateral.geks_windows(panel, params["bilateral"], params["window"])
    history = "published" if splice.endswith("_published") else "recalculated"
    return multilateral.splice(windows, splice.removesuffix("_published"), history).values


def contributions(case, params):
    kind = params.get("decomposition", "van_ijzeren")
    panel = panel_of(case)
    return formulas.contributions(panel, params["formula"], params["base"], params["period"], decomposition=kind)


def chain_link(case, params):
    index = aggregation.chain_linked(frames(case), yearly_weights(case), params["link_month"])
    return chaining.rebase(index, params.get("reference") or index.base).values


def chained_contributions(case, params):
    parts = aggregation.chained_contributions(frames(case), yearly_weights(case), params["link_month"], params["lag"])
    return parts.loc[params["period"]] * 100


def unchain(case, params):
    values = series(case)
    return chaining.unchain(FixedBaseIndex(values, values.index[0]), params["link_month"]).values


def rebase(case, params):
    values = series(case)
    return chaining.rebase(FixedBaseIndex(values, values.index[0]), params["reference"]).values


def link(case, params):
    old, new = (FixedBaseIndex(series(case, name), "") for name in ("old", "new"))
    return chaining.link(old, new, params["overlap"]).values


def imputed(case, params):
    prices, rule = frames(case), params["rule"]
    if rule.startswith("carry"):
        return imputation.carried(prices, len(prices), backward=rule == "carry_backward")
    mean = {"jevons": "geometric"}.get(params["formula"], params["formula"])
    weights = flat_weights(case) if "weights" in case else None
    if rule == "overall_mean":
        return imputation.overall_mean(prices, weights, mean)
    classes = dict(zip(case["data"]["product"], case["data"]["class"], strict=True))
    return imputation.class_mean(prices, classes, weights, mean)


def impute(case, params):
    grid = imputed(case, params).prices
    return {f"{period}|{product}": grid.at[period, product] for period in grid.index for product in grid.columns}


def imputed_index(case, params):
    return bilateral({**case, "method": params["index"]}, params, Panel(imputed(case, params).prices))


def weighted_mean(case, params):
    return aggregation.weighted_mean(frames(case), flat_weights(case), params["mean"])


def price_update(case, params):
    prices = frames(case)
    return aggregation.price_updated(
        flat_weights(case), prices.loc[params["from_period"]], prices.loc[params["to_period"]]
    )


METHODS = {
    **dict.fromkeys(get_args(formulas.Formula), bilateral),
    "geks": geks,
    "contributions": contributions,
    "chain_link": chain_link,
    "chained_contributions": chained_contributions,
    "unchain": unchain,
    "rebase": rebase,
    "link": link,
    "impute": impute,
    "imputed_index": imputed_index,
    "weighted_mean_renormalised": weighted_mean,
    "price_update_weights": price_update,
}
