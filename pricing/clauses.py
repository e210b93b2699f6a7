"""Clause by clause: what the figures of a quality report show to be kept.

The clauses are those of Annex II of Regulation (EU) 2016/1011 and of IOSCO's Principles for Financial
Benchmarks, each in short. A verdict is one of ``VERDICTS``; nothing is kept by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERDICTS = ("kept", "in part", "not kept", "not shown")
LOOKED_UP = "short form; wording looked up"
FROM_MEMORY = "short form; wording not checked against the text"


@dataclass(frozen=True)
class _Facts:
    """What the clauses read: releases, the method, the proof of the last release, figures by section."""

    releases: Sequence[Mapping[str, Any]]
    method: Mapping[str, Any]
    proof: Mapping[str, Any]
    sections: Mapping[str, Mapping[str, Any]]
    rules: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", self.method.get("methodology", {}))

    def of(self, section: str) -> Any:
        return self.sections[section]["figures"]

    def table(self, section: str, name: str) -> Any:
        return self.sections[section]["tables"][name]


_Answer = tuple[str, list[str]]
_PRICES = "/v1/prices/{mineral}/{stage}/{zone}/{frequency}/{year}"


def judged(
    releases: Sequence[Mapping[str, Any]],
    method: Mapping[str, Any],
    proof: Mapping[str, Any],
    sections: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Judge every clause by the figures of a report.

    Parameters
    ----------
    releases : sequence of mappings
        Of the span: ``release, method, method_matches, decisions, decisions_match, chained``.
    method : mapping
        What the last release says of its method.
    proof : mapping
        What the verification of the last release found.
    sections : mapping
        As ``pricing.report.assemble`` makes them.

    Returns
    -------
    list of dict
        ``clause, asks, wording, verdict, evidence, where``. Without a release nothing is shown.
    """
    facts = _Facts(releases, method, proof, sections)
    out = []
    for clause, asks, wording, judge, where in _CLAUSES:
        # releases that were due and not made are shown by there being none
        shown = releases or (judge is _times and facts.of("timeliness")["due"])
        verdict, evidence = judge(facts) if shown else ("not shown", ["no release in the span"])
        assert verdict in VERDICTS
        out.append(
            {
                "clause": clause,
                "asks": asks,
                "wording": wording,
                "verdict": verdict,
                "evidence": evidence,
                "where": where,
            }
        )
    return out


def _verdict(broken: int, seen: int, best: str = "kept") -> str:
    """Broken once is not kept; nothing seen shows nothing."""
    return "not kept" if broken else best if seen else "not shown"


def _criteria(f: _Facts) -> _Answer:
    wrong = sum(not r["method_matches"] for r in f.releases)
    methods = sorted({r["method"] for r in f.releases})
    return _verdict(wrong, len(f.releases)), [
        f"{len(f.releases) - wrong} of {len(f.releases)} releases hold the method whose hash they bear "
        f"({', '.join(methods)})"
    ]


def _judgement(f: _Facts) -> _Answer:
    decisions = max(r["decisions"] for r in f.releases)
    judged_by_hand = f.of("determinations")["judged_by_hand"]
    told = [
        f"{decisions} decisions by hand are counted in the manifests of {len(f.releases)} releases",
        f"determinations whose record tells of judgement: {judged_by_hand}",
    ]
    kinds = ", ".join(f"{r['kind']} for {r['reason']} {r['ever']}" for r in f.table("judgement", "decisions")) or "none"
    differing = sum(not r["decisions_match"] for r in f.releases)
    unknown = f.of("judgement")["decisions_named_and_not_in_the_log"]
    return _verdict(differing + unknown, len(f.releases), "in part"), [
        *told,
        f"decisions by kind and reason, each with its actor in the log: {kinds}",
        f"releases whose hash of the log is not that of the log: {differing} of {len(f.releases)}",
        f"decisions that a record names and the log does not hold: {unknown}",
        "settings that mark quotations void or keep series out are hashed, and not counted here",
    ]


def _importance(f: _Facts) -> _Answer:
    own = f.of("determinations")
    off, seen = own["weights_not_summing_to_1"], own["priced_of_own_contributors"]
    tiers = f.rules.get("determination", {}).get("tier_weights", {})
    shares = ", ".join(f"{t['tier']} {t['share']}" for t in f.table("determinations", "tiers")) or "none"
    return _verdict(off, seen if tiers else 0), [
        f"weights of tiers in the method: {', '.join(f'{t} {w}' for t, w in tiers.items()) or 'none'}",
        f"share of weight by tier: {shares}",
        f"determinations whose weights do not sum to 1: {off} of {seen}",
    ]


def _minimum(f: _Facts) -> _Answer:
    own, indices = f.of("determinations"), f.table("coverage", "indices")
    short = [i["index"] for i in indices if i["published"] and not _covered(i)]
    return _verdict(len(short), len(indices), "in part"), [
        f"indices published with less coverage than their own least: {len(short)} of {len(indices)}"
        + (f" ({', '.join(short)})" if short else ""),
        f"prices of one origin: {own['of_one_origin']} of {own['priced_of_own_contributors']}, graded accordingly",
        "no least number or volume of transactions is set for a price",
    ]


def _covered(index: Mapping[str, Any]) -> bool:
    least = min(index["own_price_markets"] or 0.0, index["own_price_weight"] or 0.0)
    return index["needed"] is not None and least >= index["needed"]


def _fallback(f: _Facts) -> _Answer:
    own = f.of("determinations")
    wrong = own["normal_without_price"] + own["price_without_normal_status"]
    statuses: dict[str, int] = {}
    for row in f.table("determinations", "statuses"):
        statuses[row["status"]] = statuses.get(row["status"], 0) + row["n"]
    return _verdict(wrong, own["determinations"], "in part"), [
        f"determinations by status: {', '.join(f'{s} {n}' for s, n in sorted(statuses.items())) or 'none'}",
        f"a price without normal status, or the reverse: {wrong} of {own['determinations']}",
        f"carried prices: {own['carried']}; an ordered fallback through relaxed windows and linked markets: not shown",
    ]


def _times(f: _Facts) -> _Answer:
    told = f.of("timeliness")
    stale = f"stale sources, summed over releases: {told['stale_sources']}"
    rest = [stale, "a cut-off for each series, and late data entering the next determination: not shown"]
    if told["due"] is None:
        return "not shown", ["instants of release are deemed in a replayed database", *rest]
    line = f"releases due {told['due']}, made before the next was due {told['kept']}, missed {told['missed']}"
    return _verdict(told["missed"], told["due"], "in part"), [line, *rest]


def _one_source(f: _Facts) -> _Answer:
    own = f.of("determinations")
    seen = own["priced_of_own_contributors"] if own["cap"] is not None else 0
    return _verdict(own["above_cap"], seen), [
        f"prices in which one origin weighs above the cap of {own['cap']} (or 1/n of n origins): {own['above_cap']} "
        f"of {own['priced_of_own_contributors']}",
        f"largest weight where there are several origins: {own['largest_weight_of_several']}",
        f"prices of one origin alone, which no cap can help: {own['of_one_origin']}",
    ]


def _record(f: _Facts) -> _Answer:
    own = f.of("determinations")
    lacking, seen = own["records_lacking_a_field"], own["of_own_contributors"]
    types = f.table("determinations", "determination_types")
    kinds = ", ".join(f"{r['frequency']} {r['determination_type']} {r['n']}" for r in types) or "none"
    return _verdict(lacking, seen, "in part"), [
        f"records with all of type, judgement, number of origins, range, spread, largest weight, influence, shares of "
        f"tiers, contributors and exclusions: {seen - lacking} of {seen}",
        f"determinations by type: {kinds}",
        "number and volume of transactions: not shown, since no source tells them",
    ]


def _kept_records(f: _Facts) -> _Answer:
    broken = sum(not r["chained"] for r in f.releases)
    wrong = broken + f.proof["problems"] + f.proof["absent"]
    return _verdict(wrong, f.proof["files"]), [
        f"releases not chained by hash to the one before: {broken} of {len(f.releases)}",
        f"verification of release {f.proof['release']}: {f.proof['problems']} problems in {f.proof['files']} files, "
        f"chain of {f.proof['chain']}",
        f"documents named by it and not in the archive: {f.proof['absent']} of {f.proof['documents']}",
    ]


def _design(f: _Facts) -> _Answer:
    reason = str(f.method.get("in_force", {}).get("rationale", "")).strip()
    told = [
        f"the method gives {'its' if reason else 'no'} rationale",
        f"markets defined by mineral, stage, zone and unit: {len(f.rules.get('markets', ()))}",
    ]
    return ("in part" if reason else "not shown"), [*told, "size and activity of each market: not shown"]


def _sufficiency(f: _Facts) -> _Answer:
    own, coverage = f.of("determinations"), f.of("coverage")
    several = own["priced_of_own_contributors"] - own["of_one_origin"]
    return ("in part" if own["priced_of_own_contributors"] else "not shown"), [
        f"prices of two or more origins: {several} of {own['priced_of_own_contributors']}",
        f"market-months with a price: {coverage['market_months_priced']} of {coverage['market_months_over']}",
        "that the inputs rest on transactions at arm's length: not shown",
    ]


def _hierarchy(f: _Facts) -> _Answer:
    _, (stated, shares, _) = _importance(f)
    seen = f.of("determinations")["priced_of_own_contributors"]
    return ("in part" if seen else "not shown"), [
        stated,
        shares,
        "an order in which tiers replace each other: not shown",
    ]


def _transparency(f: _Facts) -> _Answer:
    own = f.of("determinations")
    means = own["determinations"] - own["of_own_contributors"]
    lacking, unnamed = own["records_lacking_a_field"], own["means_without_records"]
    return _verdict(lacking + unnamed, own["determinations"]), [
        f"determinations with a complete record beside the figure: {own['of_own_contributors'] - lacking} of "
        f"{own['of_own_contributors']}",
        f"means that name the records they are made from: {means - unnamed} of {means}",
    ]


def _review(f: _Facts) -> _Answer:
    baskets = f.rules.get("baskets", {})
    dated = sum(bool(rule.get("review")) for rule in baskets.values())
    return ("in part" if dated and dated == len(baskets) else "not shown"), [
        f"indices with a month of review in the method: {dated} of {len(baskets)}",
        f"methods in force in the span: {', '.join(sorted({r['method'] for r in f.releases}))}; pending changes: "
        f"{len(f.method.get('pending', ()))}",
        "that the reviews were held, and what they found: not shown",
    ]


_CLAUSES: tuple[tuple[str, str, str, Callable[[_Facts], _Answer], str], ...] = (
    ("Annex II 1(a)", "criteria and procedures", LOOKED_UP, _criteria, "/v1/methodology, methodology.toml"),
    ("Annex II 1(b)", "consistency of judgement", LOOKED_UP, _judgement, "lodemark review log; manifest.json"),
    ("Annex II 1(c)", "relative importance of each type of data", LOOKED_UP, _importance, f"{_PRICES}: contributors"),
    ("Annex II 1(d)", "least transaction data, or why none", LOOKED_UP, _minimum, "/v1/indices/{id}: coverage"),
    ("Annex II 1(e)", "procedure when data fall short", LOOKED_UP, _fallback, f"{_PRICES}: status, type"),
    ("Annex II 1(f)", "timeliness and means of submission", LOOKED_UP, _times, "section Timeliness; /v1/sources"),
    ("Annex II 1(g)", "one submitter of a significant share", FROM_MEMORY, _one_source, f"{_PRICES}: largest_weight"),
    ("Annex II 7(a)", "explanation published with each price", LOOKED_UP, _record, _PRICES),
    ("Annex II 10", "records of inputs, judgements, exclusions", LOOKED_UP, _kept_records, "lodemark verify latest"),
    ("IOSCO FB P6", "design of the benchmark", FROM_MEMORY, _design, "/v1/methodology: in_force.rationale"),
    ("IOSCO FB P7", "sufficiency of data", FROM_MEMORY, _sufficiency, "sections Coverage and Determinations"),
    ("IOSCO FB P8", "hierarchy of data", FROM_MEMORY, _hierarchy, "/v1/methodology: determination.tier_weights"),
    ("IOSCO FB P9", "transparency of determinations", FROM_MEMORY, _transparency, _PRICES),
    ("IOSCO FB P10", "periodic review", FROM_MEMORY, _review, "/v1/methodology"),
)  # fmt: skip
