"""Who must hear of what, once: shocks into alerts with a life of their own, and each alert to its subscribers.

Pure. An alert has the terms and the life of the Common Alerting Protocol 1.2 (OASIS, 2010): it opens, is updated when
the picture changes, ends when its shocks are over, and is cancelled when they prove to be an error. Whatever is told is
told against what was told last, so a message that is held up for a while is not lost, and none is told twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from pricing.config import Operation
from pricing.figures import Figures, MarketPrices
from pricing.parcel import message_id
from pricing.settings import one_line
from pricing.shocks import DOUBTFUL
from pricing.subscribers import Alerts, Subscriber
from pricing.watchlist import PREMIUM

Document = dict[str, Any]
SEVERITY = ("Minor", "Moderate", "Severe", "Extreme")
CERTAINTY = {"possible": "Possible", "likely": "Likely", "observed": "Observed"}
SURE = tuple(CERTAINTY)
REVIVED = dt.timedelta(days=92)  # an alert that ended longer ago is let be, whatever becomes of its figures
EXPIRES = {"shock": 7, "monthly movement": 62, "operation": 7}  # days after which a message is no news any more
WORSE = 1.5  # a move that has grown by half is told again
REVISED = (1.0, 0.1)  # percentage points, and share of the change told, from which a revised change is told
SHOWN = 20  # details in one message to the operator
PLACES = {"CN": "in China", "XCN": "outside China", "WLD": "worldwide"}
KINDS = ("price", "premium", "index")  # of series, in the order in which a message names them
OPERATION = "operation"


@dataclass(frozen=True)
class Ground:
    """What an alert on a series rests on: whether all sources allow it, and who publishes the figures themselves."""

    allowed: bool
    published_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Occasion:
    """What the messages of one occasion have in common."""

    audience: str
    at: dt.datetime
    rules: Alerts
    release: int | None = None
    simulated: bool = False
    grounds: Mapping[str, Ground] = field(default_factory=dict)

    def link(self, path: str) -> str:
        """Address of a document; its path only where the settings name no address."""
        return f"{(self.rules.base_url or '').rstrip('/')}{path}"


# ---------------------------------------------------------------------------------------- rights


def grounds(figures: Figures, operation: Operation, shocks: Iterable[Mapping[str, Any]]) -> dict[str, Ground]:
    """Say of each series with a shock what an alert on it rests on.

    All quotations of a market count, whether or not they made its last price, and those of the market that stands in
    for it.
    """
    owner = operation.source_of()

    def of_market(market: MarketPrices) -> set[str]:
        made = [p for p in (market.daily, market.ten_day, market.monthly) if p is not None]
        return {owner[s.id] for p in made for s in p.quotes.series if p.quotes.usd_per_t[s.id].notna().any()}

    sources = {key: of_market(market) for key, market in figures.prices.items()}
    for key, market in figures.prices.items():
        sources[key] = sources[key] | sources.get(market.market.linked, set())
    out = {}
    for shock in shocks:
        markets = shock["markets"]
        if shock["of"] == "index":
            basket = figures.baskets.get(shock["series"])
            weights = [index.weights for index in basket.indices.values()] if basket else []
            markets = sorted({str(m) for table in weights for m in table.columns})
        names = set().union(*(sources.get(m, set()) for m in markets))
        if names:
            rights = {operation.sources[name].publisher: operation.sources[name].rights for name in sorted(names)}
            public = tuple(sorted(publisher for publisher, right in rights.items() if right.publish_value))
            out[shock["series"]] = Ground(all(operation.sources[n].rights.alert for n in names), public)
    return out


# ---------------------------------------------------------------------------- shocks into alerts


def of_shocks(
    shocks: Sequence[Document], before: Iterable[Document], occasion: Occasion, elsewhere: Collection[str] = ()
) -> list[Document]:
    """Return the messages that shocks, as a release tells them, call for after all that was told before.

    Parameters
    ----------
    shocks : sequence of dict
        All shocks as the documents of the release have them, with ``indices`` and ``href``.
    before : iterable of dict
        Alerts that were told to this audience, in any order.
    elsewhere : collection of str
        Ids of shocks that another audience was told of: no second alert opens on them.

    Returns
    -------
    list of dict
        Messages, the most severe first. ``list`` says whom they are for: doubtful figures, and what the terms of a
        source keep from being told, are for the operator.
    """
    now = {one["id"]: one for one in shocks}
    threads = _threads(one for one in before if one["product"] != OPERATION)
    told = {(docs[-1]["list"], s["id"]) for docs in threads.values() for s in docs[-1]["shocks"]}
    new = [
        s for s in shocks
        if _fit(s, occasion) and s["id"] not in elsewhere and (_list(s, occasion), s["id"]) not in told
    ]  # fmt: skip
    new.sort(key=lambda s: (KINDS.index(s["of"]), -s["severity"], s["flagged"], s["id"]))
    homes = _Homes()
    joined: dict[str, list[Document]] = {thread: [] for thread in threads}
    for thread, docs in threads.items():
        if docs[-1]["state"] == "open":
            homes.add(docs[-1]["list"], joined[thread], docs[-1]["shocks"], docs[0]["sent"])
    fresh: list[list[Document]] = []
    for shock in new:
        whose, current = _list(shock, occasion), _is_current(shock, occasion)
        if not homes.take_in(whose, shock, current) and current:
            fresh.append([])
            homes.add(whose, fresh[-1], (), "")
            homes.put(whose, len(homes.all) - 1, shock)
    out = [_opening(group, occasion) for group in fresh]
    for thread, docs in threads.items():
        message = _following(docs, joined[thread], now, occasion)
        if message is not None:
            out.append(message)
    out.sort(key=lambda one: (-rank(one), one["identifier"]))
    return out


def _threads(documents: Iterable[Document]) -> dict[str, list[Document]]:
    """Messages by the alert that they belong to, in order."""
    out: dict[str, list[Document]] = {}
    for one in sorted(documents, key=lambda one: (one["sent"], one["version"])):
        out.setdefault(one["thread"], []).append(one)
    return out


def rank(message: Document) -> int:
    """Severity as a number, 1 to 4."""
    return SEVERITY.index(message["severity"]) + 1


def _fit(shock: Document, occasion: Occasion) -> bool:
    """Whether a shock is news of the severity that is told."""
    return (
        shock["state"] != "withdrawn" and not shock["hindsight"] and shock["severity"] >= occasion.rules.least_severity
    )


def _is_current(shock: Document, occasion: Occasion) -> bool:
    """Whether a shock may open an alert: it lasts, or was over before anybody learnt of it."""
    return bool(shock["state"] == "open" or shock["told_in"] == occasion.release)


def _list(shock: Document, occasion: Occasion) -> str:
    """Who is told of a shock."""
    ground = occasion.grounds.get(shock["series"])
    allowed = occasion.audience == "public" and ground is not None and ground.allowed
    return "partners" if allowed and shock["verdict"] not in DOUBTFUL else "operator"


class _Homes:
    """Alerts that a shock may be told with, found by what their shocks have in common with it: a storm has many."""

    def __init__(self) -> None:
        self.all: list[tuple[list[Document], list[Document], str]] = []  # what joins, all members, since when
        self._by: dict[tuple[str, str], list[int]] = {}

    def add(self, whose: str, joining: list[Document], members: Iterable[Document], since: str) -> None:
        """Add an alert with the shocks that it has."""
        self.all.append((joining, list(members), since))
        for one in members:
            self._note(whose, one, len(self.all) - 1)

    def put(self, whose: str, place: int, shock: Document) -> None:
        """Let a shock join an alert."""
        joining, members, _ = self.all[place]
        joining.append(shock)
        members.append(shock)
        self._note(whose, shock, place)

    def take_in(self, whose: str, shock: Document, current: bool) -> bool:
        """Let a shock join the first alert that is related to it; tells whether there is one.

        One that is over joins an alert that was open when it was learnt.
        """
        places = sorted({n for key in _bonds(shock) for n in self._by.get((whose, key), ())})
        for n in places:
            _, members, since = self.all[n]
            if (current or (since and shock["learnt_at"] >= since)) and any(_related(shock, m) for m in members):
                self.put(whose, n, shock)
                return True
        return False

    def _note(self, whose: str, shock: Document, place: int) -> None:
        for key in (*_bonds(shock), *(i["id"] for i in shock.get("indices", ()))):
            self._by.setdefault((whose, key), []).append(place)


def _bonds(shock: Document) -> list[str]:
    """Names under which related shocks are found."""
    of_index = ["an index"] if shock["of"] == "index" else []
    return [shock["series"], *shock["minerals"], *of_index, *([shock["event"]] if shock["event"] else [])]


def _related(one: Document, other: Document) -> bool:
    """Whether two shocks are told in one message: a common event, the same mineral, or an index and what moved it."""
    if one["product"] != other["product"]:
        return False
    if one["series"] == other["series"]:
        return True
    if "index" not in (one["of"], other["of"]):
        return bool((one["event"] and one["event"] == other["event"]) or set(one["minerals"]) & set(other["minerals"]))
    overlap = one["onset"] <= other["last"] and other["onset"] <= one["last"]
    if one["of"] == other["of"]:
        return bool(overlap and one["direction"] == other["direction"])
    # An index is told with what moved it; it does not draw other minerals into that alert.
    return overlap and one["of"] == "index" and any(i["id"] == one["series"] for i in other.get("indices", ()))


def _stands(shock: Document, whose: str) -> bool:
    return shock["state"] != "withdrawn" and (whose == "operator" or shock["verdict"] not in DOUBTFUL)


def _opening(shocks: list[Document], occasion: Occasion) -> Document:
    whose = _list(shocks[0], occasion)
    seed = "|".join((occasion.audience, whose, shocks[0]["product"], *sorted(s["id"] for s in shocks)))
    thread = _name(occasion.at, seed)
    return _message(thread, [], shocks, "open", whose, [], occasion)


def _name(at: dt.datetime, seed: str) -> str:
    return f"lodemark-{at:%Y%m%d}-{hashlib.sha256(f'{at.isoformat()}|{seed}'.encode()).hexdigest()[:10]}"


def _following(
    docs: Sequence[Document], joined: Sequence[Document], now: Mapping[str, Document], occasion: Occasion
) -> Document | None:
    """Return the next message of an alert, where there is something to tell that was not told."""
    last, whose = docs[-1], docs[-1]["list"]
    since = occasion.at - dt.datetime.fromisoformat(last["sent"])
    if last["by_hand"] or (last["state"] != "open" and since > REVIVED):
        return None
    members = [*(now.get(s["id"], s) for s in last["shocks"]), *joined]
    standing = [s for s in members if _stands(s, whose)]
    state = _state(standing, last, occasion)
    why, worse = _changes(docs, members, occasion)
    correction = False
    if state != last["state"]:
        revived = state == "open"
        if revived and (since < _hours(occasion.rules.reopen_hours) or not any(_sure(s) for s in standing)):
            return None
        if state == "closed":
            why = ["it is over" if standing else "its figures were corrected or withdrawn", *why]
        elif state == "open":
            why = ["it stands after all", *why]
        why = why or ["it was an error"]
    elif state == "open" and not why:
        why = _revised(last, members)
        correction = bool(why)
    elif state != "open" and not worse:
        return None  # what ended is told of again only when it was wrong
    held = state == last["state"] and not worse and since < _hours(occasion.rules.suppress_hours)
    if not why or held:
        return None
    message = _message(last["thread"], docs, members, state, whose, why, occasion)
    return message | {"correction": correction}


def _state(standing: Sequence[Document], last: Document, occasion: Occasion) -> str:
    if not standing:
        return "cancelled" if last["list"] == "partners" else "closed"
    if any(s["state"] == "open" and (last["list"] == "partners" or _list(s, occasion) == "operator") for s in standing):
        return "open"
    if last["state"] != "open":
        return str(last["state"])
    moved_on = last["list"] == "operator" and all(_list(s, occasion) == "partners" for s in standing)
    rest = occasion.at - max(map(_over_since, standing))
    return "closed" if moved_on or rest >= _hours(occasion.rules.reopen_hours) else "open"


def _over_since(shock: Document) -> dt.datetime:
    """When we learnt that a shock is over."""
    lines = [line["vintage"] for line in shock["history"] if line["state"] == shock["state"] and line["vintage"]]
    first = next(iter(lines), shock["learnt_at"])
    return dt.datetime.fromisoformat(first)


def _changes(docs: Sequence[Document], members: Sequence[Document], occasion: Occasion) -> tuple[list[str], bool]:
    """Say what changed since the last message, and whether it cannot wait.

    Each of these can happen a few times only in the life of an alert, so that nothing which goes up and down is told
    again and again: a market joins once, severity and certainty count against the highest that was told.
    """
    last, whose = docs[-1], docs[-1]["list"]
    told = {s["id"]: s for s in last["shocks"]}
    markets = {s["series"] for s in last["shocks"]}
    prices = any(s["of"] == "price" for s in members)  # beside which it is no news how sure an index is
    most_sure: dict[str, int] = {}
    for doc in docs:
        for s in doc["shocks"]:
            most_sure[s["id"]] = max(most_sure.get(s["id"], 0), SURE.index(s["certainty"]))
    why, worse = [], False
    for s in members:
        old = told.get(s["id"])
        if not _stands(s, whose):
            if old is None or _stands(old, whose):
                why.append(f"{place(s)}: withdrawn, {_last_why(s)}")
                worse = True
        elif old is None:
            if s["series"] not in markets:
                why.append(f"{place(s)} moved too, {percent(s)}")
        elif SURE.index(s["certainty"]) > most_sure[s["id"]] and (s["of"] != "index" or not prices):
            why.append(f"{place(s)}: {s['certainty']} now, {_last_why(s)}")
    standing = [s for s in members if _stands(s, whose)]
    severity, most = max((s["severity"] for s in standing), default=0), max(map(rank, docs))
    if severity > most:
        why.append(f"more severe: {SEVERITY[severity - 1]}, it was {SEVERITY[most - 1]}")
        worse = True
    largest = max(standing, key=_size, default=None)
    before = max((_size(s) for doc in docs for s in doc["shocks"]), default=0.0)
    if largest is not None and before and _size(largest) >= WORSE * before and severity <= most:
        why.append(f"{place(largest)} has moved further: {percent(largest)}")
        worse = True
    return why, worse


def _revised(last: Document, members: Sequence[Document]) -> list[str]:
    """Say whose change is smaller than was told: the largest move of a shock shrinks by a revision only."""
    told = {s["id"]: s for s in last["shocks"]}
    out = []
    for s in members:
        old = told.get(s["id"])
        if old is None or s["change_percent"] is None or old["change_percent"] is None:
            continue
        least = max(REVISED[0], REVISED[1] * abs(old["change_percent"]))
        along = s["change_percent"] * (1 if old["change_percent"] > 0 else -1)
        if abs(old["change_percent"]) - along >= least:
            out.append(f"{place(s)}: revised to {percent(s)}, told was {percent(old)}")
    return out


def _last_why(shock: Document) -> str:
    return str(shock["history"][-1]["why"]) if shock["history"] else "no reason is known"


def _sure(shock: Document) -> bool:
    return SURE.index(shock["certainty"]) > 0


def _size(shock: Document) -> float:
    return abs(float(shock["change_percent"] or 0.0))


def _hours(hours: float) -> dt.timedelta:
    return dt.timedelta(hours=hours)


# -------------------------------------------------------------------------------------- messages


def _message(
    thread: str,
    docs: Sequence[Document],
    members: Sequence[Document],
    state: str,
    whose: str,
    why: Sequence[str],
    occasion: Occasion,
) -> Document:
    """Put a message together, in the terms of the protocol."""
    standing = [s for s in members if _stands(s, whose)] or list(members)
    standing.sort(key=lambda s: (KINDS.index(s["of"]), -s["severity"], -_size(s), s["id"]))
    product = standing[0]["product"]
    sure = max(SURE.index(s["certainty"]) for s in standing)
    doubted = state == "cancelled" or all(s["verdict"] == "error" for s in standing)
    event = {"shock": "Price shock", "monthly movement": "Price movement of the month"}[product]
    line = headline(standing)
    if whose == "operator":
        event = "Doubtful price" if any(s["verdict"] in DOUBTFUL for s in standing) else f"{event}, not for partners"
        line = f"{event}: {line}"
    shown = occasion.audience == "public"
    known = [occasion.grounds[s["series"]] for s in members if s["series"] in occasion.grounds]
    # a market that nobody quotes any more has no rights to ask: what was told before may be ended
    allowed = all(g.allowed for g in known) and (len(known) == len(members) or bool(docs and docs[-1]["alert_allowed"]))
    head = _head(thread, docs, state, whose, event, occasion, product)
    if state != "open" and docs and docs[-1]["alert_allowed"] and shown and not allowed:
        return head | _bare(docs[-1])
    return {
        **head,
        "urgency": "Immediate" if product == "shock" and state == "open" else "Past",
        "severity": SEVERITY[max(s["severity"] for s in standing) - 1],
        "certainty": "Unlikely" if doubted else CERTAINTY[SURE[sure]],
        "onset": min(s["onset"] for s in standing),
        "headline": one_line(line),
        "why": "; ".join(why),
        "shocks": [_public(s, occasion) for s in (*standing, *(m for m in members if m not in standing))],
        "indices": _effects(standing) if state != "cancelled" else [],
        "links": _links(standing, occasion) if shown else {},
        "alert_allowed": shown and allowed,
        "published_by": sorted({name for g in known for name in g.published_by}),
        "description": "",
    }


def _bare(last: Document) -> Document:
    """The end of an alert whose figures may be told no more, without any of them."""
    return {
        "urgency": "Past", "severity": last["severity"], "certainty": last["certainty"], "onset": last["onset"],
        "headline": last["event"], "why": "its figures may not be told any more", "shocks": [], "indices": [],
        "links": {}, "alert_allowed": True, "published_by": [], "description": "",
    }  # fmt: skip


def _public(shock: Document, occasion: Occasion) -> Document:
    """Add whether the figures that a shock rests on are published by others too."""
    ground = occasion.grounds.get(shock["series"])
    if ground is None:
        return shock
    return shock | {"public_elsewhere": bool(ground.published_by), "published_by": list(ground.published_by)}


def _head(
    thread: str, docs: Sequence[Document], state: str, whose: str, event: str, occasion: Occasion, product: str
) -> Document:
    version = len(docs) + 1
    kind = "Cancel" if state == "cancelled" else "Update" if docs else "Alert"
    return {
        "identifier": thread if version == 1 else f"{thread}.{version}",
        "thread": thread,
        "version": version,
        "audience": occasion.audience,
        "list": whose,
        "sent": _iso(occasion.at),
        "status": "Test" if occasion.simulated else "Actual",
        "msgType": kind,
        "references": [d["identifier"] for d in docs],
        "response": {"open": "Assess", "closed": "AllClear", "cancelled": "None"}[state],
        "state": state,
        "product": product,
        "event": event,
        "expires": _iso(occasion.at + dt.timedelta(days=EXPIRES[product])),
        "release": occasion.release,
        "released_at": _iso(occasion.at) if occasion.release is not None else None,
        "simulated": occasion.simulated,
        "correction": False,
        "by_hand": False,
    }


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def headline(shocks: Sequence[Document]) -> str:
    """Say in a line which markets moved and by how much, the largest first."""
    first, minerals = shocks[0], list(dict.fromkeys(m for s in shocks for m in s["minerals"]))
    if len(minerals) > 2:
        named = ", ".join(m.replace("-", " ") for m in minerals[:2])
        return f"{named} and {len(minerals) - 2} more: {percent(first)} in {place(first)}"
    other = next((s for s in shocks if s["of"] != "index" and s["series"] != first["series"]), None)
    also = f"; {place(other)} {percent(other)}" if other is not None else ""
    span = " to ".join(dict.fromkeys((first["onset"], first["to"]["period"])))
    return f"{place(first)} {percent(first)}, {span}{also}"


def place(shock: Document) -> str:
    """Name the market of a shock in words: ``gallium metal outside China``."""
    series = shock["series"]
    if shock["of"] == "index":
        return f"index {series}"
    if shock["of"] == "premium":
        mineral, stage = series.removeprefix(PREMIUM).split("/")[:2]
        return f"{mineral} {stage} in China over outside".replace("-", " ")
    mineral, stage, zone = series.split("/")
    return f"{mineral.replace('-', ' ')} {stage} {PLACES[zone]}"


def percent(shock: Document) -> str:
    """Change with its sign, in per cent, to three digits."""
    change = shock["change_percent"]
    if change is None:
        return "by an unknown amount"
    text = f"{change:+,.0f} %" if abs(change) >= 100 else f"{change:+.3g} %"
    return text.replace(",", "\N{NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")


def _effects(shocks: Iterable[Document]) -> list[Document]:
    """What the shocks of a message do to each index together: their weights times their changes, in per cent."""
    out: dict[str, Document] = {}
    for shock in shocks:
        for one in shock.get("indices", ()):
            sum_ = out.setdefault(one["id"], {"id": one["id"], "weight": 0.0, "percent": 0.0})
            sum_["weight"] += one["weight"]
            sum_["percent"] += one["percent"]
    return [{k: float(f"{v:.6g}") if k != "id" else v for k, v in one.items()} for one in out.values()]


def _links(shocks: Sequence[Document], occasion: Occasion) -> Document:
    prices = [s for s in shocks if s["of"] == "price"]
    records = [f"{s['href']}/{s['frequency']}/{s['to']['period'][:4]}" for s in prices if "href" in s]
    return {
        "release": occasion.link(f"/v1/releases/{occasion.release}"),
        "alerts": occasion.link("/v1/alerts"),
        "shocks": occasion.link("/v1/shocks"),
        "series": [occasion.link(s["href"]) for s in shocks if "href" in s],
        "records": [occasion.link(path) for path in dict.fromkeys(records)],
    }


def cancelled(docs: Sequence[Document], reason: str, actor: str, at: dt.datetime) -> Document:
    """Return the message that ends an alert by hand; nothing is told of its shocks afterwards.

    Raises ValueError where it was cancelled already, or where the reason is no line of text.
    """
    last = docs[-1]
    if last["state"] == "cancelled":
        raise ValueError(f"{last['thread']} is cancelled already")
    occasion = Occasion(last["audience"], at, Alerts(), last["release"], last["simulated"])
    head = _head(last["thread"], docs, "cancelled", last["list"], last["event"], occasion, last["product"])
    same = {k: last[k] for k in last if k not in head}
    return {
        **same, **head, "released_at": last["released_at"], "urgency": "Past", "certainty": "Unlikely", "by_hand": True,
        "why": one_line(f"cancelled by {actor}: {reason}"), "indices": [],
    }  # fmt: skip


def exercise(name: str, occasion: Occasion) -> Document:
    """Return a message that only tries whether alerts arrive."""
    thread = _name(occasion.at, f"exercise|{name}")
    head = _head(thread, [], "closed", "operator", "Exercise", occasion, OPERATION)
    return head | {
        "status": "Exercise", "urgency": "Unknown", "severity": SEVERITY[0], "certainty": "Observed",
        "onset": head["sent"], "headline": one_line(f"A test of alerts to {name}; no market has moved"),
        "why": "somebody asked for a test", "shocks": [], "indices": [], "links": {}, "alert_allowed": True,
        "published_by": [], "by_hand": True,
        "description": "Nothing is to be done. If you read this, alerts reach you.",
    }  # fmt: skip


# ------------------------------------------------------------------------------------- operation


@dataclass(frozen=True)
class Condition:
    """Something that is wrong with the service now.

    Attributes
    ----------
    key : str
        ``kind:what``: the same for as long as it is the same matter.
    items : tuple of str
        What is new in it is told: findings, say.
    """

    key: str
    event: str
    headline: str
    severity: int
    details: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


def of_operation(
    conditions: Iterable[Condition], before: Iterable[Document], occasion: Occasion, seen: Collection[str] = ()
) -> list[Document]:
    """Return the messages to the operator that the state of the service calls for after what was told before.

    Parameters
    ----------
    seen : collection of str
        Alerts that somebody has acknowledged: only what is more severe, or their end, is told of them.
    """
    open_: dict[str, list[Document]] = {}
    for docs in _threads(one for one in before if one["product"] == OPERATION and "key" in one).values():
        if docs[-1]["state"] == "open":
            open_[docs[-1]["key"]] = docs
    out = []
    for one in conditions:
        docs = open_.pop(one.key, [])
        why = _worsened(one, docs, occasion, seen)
        if why:
            thread = docs[0]["thread"] if docs else _name(occasion.at, one.key)
            out.append(_operational(thread, docs, "open", one, why, occasion))
    for key, docs in open_.items():
        last = docs[-1]
        gone = Condition(key, last["event"], last["headline"], rank(last), (), tuple(last["items"]))
        why = f"none came for {occasion.rules.reopen_hours:g} hours" if last["items"] else "it is over"
        out.append(_operational(last["thread"], docs, "closed", gone, why, occasion))
    out.sort(key=lambda one: (-rank(one), one["identifier"]))
    return out


def _worsened(one: Condition, docs: Sequence[Document], occasion: Occasion, seen: Collection[str]) -> str:
    """What is to be told of a condition; empty: nothing."""
    if not docs:
        return "new"
    if one.severity > max(map(rank, docs)):
        return "more severe"
    rest = occasion.at - dt.datetime.fromisoformat(docs[-1]["sent"])
    new = set(one.items) - {item for doc in docs for item in doc["items"]}
    if new and docs[0]["thread"] not in seen and rest >= _hours(occasion.rules.suppress_hours):
        return f"{len(new)} more"
    return ""


def _operational(
    thread: str, docs: Sequence[Document], state: str, one: Condition, why: str, occasion: Occasion
) -> Document:
    told = {item for doc in docs for item in doc["items"]}
    lines = [*one.details, *(item for item in one.items if item not in told or state == "closed")]
    more = [f"and {len(lines) - SHOWN} more: lodemark status, lodemark review"] if len(lines) > SHOWN else []
    head = _head(thread, docs, state, "operator", one.event, occasion, OPERATION)
    return head | {
        "urgency": "Expected" if state == "open" else "Past", "severity": SEVERITY[one.severity - 1],
        "certainty": "Observed", "onset": docs[0]["onset"] if docs else head["sent"],
        "headline": one_line(_flat(one.headline)), "why": "" if not docs else why, "shocks": [], "indices": [],
        "links": {"status": occasion.link("/v1/status")}, "alert_allowed": False, "published_by": [],
        "description": "\n".join([*map(_flat, lines[:SHOWN]), *more]), "key": one.key, "items": sorted(one.items),
    }  # fmt: skip


def _flat(text: str) -> str:
    """Text of elsewhere, such as a publisher's error page, as one line."""
    return "".join(c if c.isprintable() else " " for c in text)[:500]


# ------------------------------------------------------------------------------------ who is told


@dataclass(frozen=True)
class Delivery:
    """One message to one subscriber over one channel, as it is put into the outbox.

    Attributes
    ----------
    digest : str
        Of what waits for a digest, which one: all that have the same are sent as one message when they are due.
    state : str
        ``waiting``, or ``digest``.
    """

    alert: str
    subscriber: str
    channel: str
    address: str
    rank: int
    due: dt.datetime
    message_id: str
    digest: str = ""
    state: str = "waiting"

    def row(self) -> tuple[str | int, ...]:
        """Return it as plain data, in the order of the outbox."""
        to = (self.alert, self.subscriber, self.channel, self.address)
        return (*to, self.digest, self.rank, _iso(self.due), self.state, self.message_id)


def deliveries(
    messages: Sequence[Document],
    subscribers: Iterable[Subscriber],
    told: Mapping[str, Collection[str]],
    rules: Alerts,
    salt: str,
    at: dt.datetime,
) -> list[Delivery]:
    """Say who is told of which message, over what, and when.

    A subscriber hears of an alert that fits, and from then on all that becomes of it.

    Parameters
    ----------
    told : mapping of alert (``thread``) to names
        Who was told of it before.
    salt : str
        Without it no message id can be guessed: whoever answers with one has had the message.
    """
    return [
        delivery
        for who in subscribers
        for message in messages
        if hears(who, message, told.get(message["thread"], ()))
        for delivery in _channels(who, message, rules, salt, at)
    ]


def hears(who: Subscriber, message: Document, told: Collection[str] = ()) -> bool:
    """Tell whether a subscriber hears of a message."""
    if who.list != message["list"] or (who.list == "partners" and not message["alert_allowed"]):
        return False
    if message["correction"] and not who.corrections:
        return False
    if who.name in told:
        return True
    if message["state"] != "open":
        return False  # the end of something that was never told
    if not message["shocks"]:
        return rank(message) >= who.least_severity
    return any(who.wants(s) for s in message["shocks"] if _stands(s, who.list))


def to_one(who: Subscriber, message: Document, rules: Alerts, salt: str, at: dt.datetime) -> list[Delivery]:
    """Deliver a message to one subscriber at once, whatever the hour and the list."""
    plain = {"due": at, "digest": "", "state": "waiting"}
    return [Delivery(**vars(one) | plain) for one in _channels(who, message, rules, salt, at)]


def _channels(who: Subscriber, message: Document, rules: Alerts, salt: str, at: dt.datetime) -> Iterator[Delivery]:
    number = message_id(message["identifier"], who.name, rules.domain, salt)
    level = max((s["severity"] for s in message["shocks"] if who.wants(s)), default=rank(message))
    for channel in who.channels:
        if channel == "webhook" and who.webhook is not None:
            url = who.webhook.url
            yield Delivery(message["identifier"], who.name, channel, url, level, at, number)
        elif channel == "email" and rules.sender and who.address:
            quiet = who.quiet_hours
            due = at if quiet is None or level >= quiet.break_at else quiet.ends(at)
            plain = Delivery(message["identifier"], who.name, channel, who.address, level, due, number)
            if who.digest != "immediate":
                yield _in_digest(plain, who.digest, who, rules, at)
            elif message["product"] == "monthly movement":
                yield Delivery(**vars(plain) | {"digest": f"release {message['release']}", "state": "digest"})
            else:
                yield plain


def _in_digest(one: Delivery, how: str, who: Subscriber, rules: Alerts, at: dt.datetime) -> Delivery:
    """Put off until the next digest: of a day at ``digest_at``, of a week on Monday."""
    zone = ZoneInfo(who.quiet_hours.zone if who.quiet_hours else rules.time_zone)
    local = at.astimezone(zone)
    day = local.date() + dt.timedelta(days=local.strftime("%H:%M") >= rules.digest_at)
    if how == "weekly":
        day += dt.timedelta(days=-day.weekday() % 7)
    due = dt.datetime.combine(day, dt.time.fromisoformat(rules.digest_at), zone).astimezone(dt.UTC)
    return Delivery(**vars(one) | {"digest": f"{how} {day}", "due": due, "state": "digest"})
