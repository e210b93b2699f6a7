"""Operation (``config.toml``) and method (``methodology/*.toml``) as frozen, validated settings.

Both files are read once, at start. Every mistake is reported at once, each with the file, the path
inside it and what was expected; a key that no setting has is a mistake too. Secrets never stand in
these files: ``lodemark`` reads them from the environment.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from zoneinfo import ZoneInfo

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pricing.errors import ConfigError
from pricing.settings import CronExpression, Settings, Slug, Stage, TimeZoneName, Zone, time_zone
from pricing.subscribers import Alerts, Subscriber, named_twice

Frequency = Literal["daily", "weekly", "ten-day", "monthly", "annual"]
Kind = Literal["price", "fx", "production", "other"]
Audience = Literal["public", "internal"]
Tier = Literal["transaction", "committed", "official", "assessment", "model"]
System = Literal["CN8", "HTS10"]
Leg = Literal["CN", "XCN", "WLD"]
ALARMS = ("spike", "volatility", "trend", "stale", "replay", "divergence")  # kinds that have a budget
WATCHED = ("daily", "ten-day", "monthly")  # frequencies
Right = Literal["store", "compute", "publish_value", "publish_derived", "forecast", "alert", "show_auditor"]

_M = TypeVar("_M")


def _cut_off(given: str) -> str:
    if given:
        clock, _, zone = given.partition(" ")
        try:
            read = dt.time.fromisoformat(clock)
        except ValueError as error:
            raise ValueError(f"a time and a time zone, such as '16:00 Europe/London'; got {given!r}") from error
        if read.tzinfo is not None:
            raise ValueError(f"the time zone by name, such as '16:00 Europe/London'; got {given!r}")
        time_zone(zone)
    return given


CutOff = Annotated[str, AfterValidator(_cut_off)]


# ------------------------------------------------------------------------------------- sources


class Rights(Settings):
    """What a source's terms allow; enforced where a release is made.

    ``open`` and ``internal`` are presets. No letter, no right: a right beyond the publisher's own
    terms needs ``letter``, the reference of the licensor's written permission.
    """

    store: bool = True
    compute: bool = True
    publish_value: bool = False
    publish_derived: bool = False
    forecast: bool = False
    alert: bool = False
    show_auditor: bool = True

    @classmethod
    def preset(cls, name: str) -> Rights:
        """Return the rights that a preset name stands for."""
        if name == "open":
            return cls(**dict.fromkeys(cls.model_fields, True))
        if name == "internal":
            return cls()
        raise ValueError(f"rights are 'open', 'internal' or a table of {', '.join(cls.model_fields)}; got {name!r}")


class Series(Settings):
    """One quotation: what it prices, in which unit, and who formed the price."""

    id: Slug
    title: str = ""
    kind: Kind = "price"
    mineral: Slug | None = None
    stage: Stage | None = None
    zone: Zone | None = None
    specification: str = ""
    unit: str = Field(description="as the publisher quotes it: USD/t, USD/lb, CNY/t, USD/mtu, USD/ozt …")
    quoted_on: str = Field(
        default="product",
        description="what the mass unit counts: product, contained, or a compound such as WO3",
    )
    content: float | None = Field(
        default=None, gt=0, le=1, description="element's mass share of the product by market specification"
    )
    tax: Literal["none", "cn-vat"] = "none"
    frequency: Frequency
    origin: Slug = Field(description="who really formed the price: copies of one quotation share it")
    tier: Tier = "official"
    precedence: int = Field(default=100, description="inside one origin the lowest number is used")
    column: str = Field(default="", description="the publisher's own name or code of the series")
    aliases: tuple[str, ...] = Field(default=(), description="names the same column bore in other vintages")
    file: str = Field(
        default="*", description="glob over the file name, where a source sends one file per series; | parts several"
    )
    currency_of: str | None = Field(
        default=None, pattern="^[A-Z]{3}$", description="fx only: the currency counted per euro"
    )
    statuses: dict[str, Literal["voided", "suspended", "limit"]] = Field(
        default={}, description="periods, or spans first/last, that are known not to be prices: shown, never used"
    )
    quarantined: str = Field(default="", description="why the series may not enter a determination yet")
    expect: tuple[str, ...] = Field(default=(), description="text that the publisher's own unit cell must show")
    cut_off: CutOff = Field(
        default="",
        description="'16:00 Europe/London': what is learnt later enters the next determination; empty: the release",
    )
    since: str = Field(
        default="",
        pattern=r"^(\d{4}(-\d{2}(-\d{2})?)?)?$",
        description="first period of this definition: earlier figures of the column are not read",
    )

    @field_validator("statuses")
    @classmethod
    def _spans(cls, given: dict[str, str]) -> dict[str, str]:
        for span in given:
            first, _, last = span.partition("/")
            for period in (first, last or first):
                try:
                    dt.date.fromisoformat(period + "0000-01-01"[len(period) :])
                except ValueError:
                    raise ValueError(f"{span!r}: a period is 2022, 2022-03 or 2022-03-08, a span first/last") from None
            if last and not (len(first) == len(last) and first <= last):
                raise ValueError(f"{span!r}: a span goes from its first to its last period")
        return given

    @model_validator(mode="after")
    def _complete(self) -> Series:
        if self.kind == "price" and self.mineral and not (self.stage and self.zone):
            raise ValueError("a price of a mineral names its stage and its zone")
        if self.cut_off and self.kind not in ("price", "fx"):
            raise ValueError(f"a {self.kind} series has no cut-off: that is for prices and exchange rates")
        if self.kind == "fx" and not self.currency_of:
            raise ValueError("an exchange rate names currency_of, such as 'CNY'")
        return self

    def last_cut_off(self, before: dt.datetime) -> dt.datetime:
        """Return the last cut-off by an instant (UTC); the instant itself where the series has none."""
        if not self.cut_off:
            return before
        clock, _, zone = self.cut_off.partition(" ")
        local = before.astimezone(ZoneInfo(zone))
        cut = dt.datetime.combine(local.date(), dt.time.fromisoformat(clock), tzinfo=ZoneInfo(zone))
        if cut > local:
            cut = dt.datetime.combine(local.date() - dt.timedelta(days=1), cut.time(), tzinfo=ZoneInfo(zone))
        return cut.astimezone(dt.UTC)

    def reads(self, file_name: str) -> bool:
        """Tell whether a document of this file name carries the series (case does not matter)."""
        return any(fnmatchcase(file_name.lower(), glob.strip().lower()) for glob in self.file.split("|"))


class Table(Settings):
    """How to read any CSV, XLSX or JSON table of prices, for the ``table`` parser."""

    format: Literal["csv", "xlsx", "json"] = "csv"
    sheet: str | None = None
    records: str = Field(
        default="", description="json: dotted path to the records; * walks a list and passes its fields down"
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8-sig"
    date: str = Field(default="date", description="the column that holds the period")
    date_format: str = Field(default="%Y-%m-%d", description="strptime format of that column")
    layout: Literal["wide", "long"] = "wide"
    key: str = Field(default="series", description="long layout: the column that names the series")
    value: str = Field(default="value", description="long layout: the column that holds the value")
    unit: str = Field(default="", description="long layout: a column with the unit, checked against each series' unit")
    decimal: str = Field(default=".", min_length=1, max_length=1)
    thousands: str = Field(default="", max_length=1)
    missing: tuple[str, ...] = ("",)


class Customs(Settings):
    """How a customs office's statistics are asked for, and what its values mean."""

    system: System = Field(description="the tariff whose codes it counts by")
    origin: Slug = Field(description="who imports: eu, us; figures of two origins are compared, never averaged")
    title: str = Field(description="the origin in words: European Union")
    currency: str = Field(pattern="^[A-Z]{3}$")
    valuation: str = Field(description="what the value holds: cif at the border, customs value …")
    china: str = Field(description="the publisher's code of the partner China")
    since: str = Field(pattern=r"^\d{4}$", description="first year that is asked for")
    key_environment: str = Field(default="", description="environment variable that holds the key; empty: keyless")
    codes_per_request: int = Field(default=1, ge=1, le=500)
    pause_seconds: float = Field(default=1.0, ge=0, description="between two requests")
    again_after_hours: float = Field(default=20, ge=0, description="an open year is not asked again sooner")
    way: Literal["api", "bulk"] = Field(default="api", description="single requests, or the monthly file of everything")


class Source(Settings):
    """One publisher's documents: where, when, under which rights, and the series in them."""

    parser: str = Field(default="", description="module under pricing/sources; the table's own name when absent")
    title: str
    publisher: str
    url: str = Field(default="", description="empty: the source is loaded from files only")
    landing: str = Field(default="", description="a page that links the document, where its address changes")
    link: str = Field(default="", description="regular expression of that link")
    terms: str = Field(description="address of the terms of use")
    terms_read: dt.date
    licence: str
    letter: str = ""
    attribution: str
    rights: Rights
    schedule: CronExpression | None = None
    time_zone: TimeZoneName = "UTC"
    complete: bool = Field(
        default=True, description="a document holds every value of its span; false: it holds changes only"
    )
    max_bytes: int = Field(default=64_000_000, gt=0)
    min_age_ok_days: int = Field(default=45, gt=0, description="older last figures than this are called stale")
    untested: str = Field(default="", description="what no real reply has confirmed yet")
    table: Table | None = None
    editions: dict[str, dt.date] = Field(
        default={}, description="publication day per edition, where the file bears none"
    )
    customs: Customs | None = Field(default=None, description="customs statistics: cells by tariff code, no series")
    series: tuple[Series, ...]

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("rights"), str):
            data = {**data, "rights": Rights.preset(data["rights"])}
        if isinstance(data, dict) and data.get("customs"):
            data = {"series": (), **data}  # customs are cells, not series
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        seen: set[str] = set()
        twice = {s.id for s in self.series if s.id in seen or seen.add(s.id)}  # type: ignore[func-returns-value]
        if twice:
            raise ValueError(f"series named twice: {', '.join(sorted(twice))}")
        if self.series and self.customs:
            raise ValueError("a source has either series or a table customs, not both")
        if self.schedule and not (self.url or self.landing):
            raise ValueError("a scheduled source needs a url (or a landing page with a link)")
        if not self.rights.store:
            raise ValueError("rights.store is false: a source that may not be stored cannot be collected")
        if self.rights.publish_value and not self.rights.publish_derived:
            raise ValueError("publish_value without publish_derived: a shown value can always be derived from")
        return self


# ----------------------------------------------------------------------------------- operation


class Publish(Settings):
    """When releases are made, and for whom."""

    schedule: CronExpression = "0 14 * * mon-fri"
    time_zone: TimeZoneName = "UTC"
    audiences: tuple[Audience, ...] = ("public",)
    title: str = "Lodemark"
    contact: str = ""


class Compute(Settings):
    """Where backtests are computed."""

    workers: int = Field(default=1, ge=1, le=256, description="processes of this machine")
    dask: str = Field(default="", pattern=r"^(tcp://.+:\d+)?$", description="scheduler of a Dask cluster that exists")


class Web(Settings):
    """Where the endpoint listens."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64)


class Fetching(Settings):
    """Limits of the one HTTP client."""

    user_agent: str = Field(default="Lodemark/0.1 (critical-minerals price transparency)", min_length=3)
    connect_seconds: float = Field(default=10, gt=0)
    read_seconds: float = Field(default=30, gt=0)
    total_seconds: float = Field(default=180, gt=0)
    attempts: int = Field(default=4, ge=1, le=20)
    max_redirects: int = Field(default=5, ge=0, le=20)
    allow_private: bool = Field(default=False, description="allow addresses of this machine and its network")


class Persons(Settings):
    """How many persons a decision needs. With 2 it is proposed until another one confirms it."""

    accept: Literal[1, 2] = Field(default=1, description="of a figure that was held back")
    override: Literal[1, 2] = Field(default=1, description="of a determination; its end needs as many")


class Review(Settings):
    """Who may decide by hand what was held back, and override a determination."""

    persons: Persons = Persons()
    actors: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), description="empty: anybody named")

    @model_validator(mode="after")
    def _enough(self) -> Review:
        if len(set(self.actors)) == 1 and 2 in (self.persons.accept, self.persons.override):
            raise ValueError("review.persons asks for two persons, and review.actors names one")
        return self


class Operation(Settings):
    """``config.toml``: what is collected, when it is published, who decides, who is told."""

    data: Path = Path("data")
    methodology: Path = Path("methodology")
    publish: Publish = Publish()
    web: Web = Web()
    compute: Compute = Compute()
    fetch: Fetching = Fetching()
    review: Review = Review()
    alerts: Alerts = Alerts()
    subscribers: tuple[Subscriber, ...] = ()
    sources: dict[Slug, Source] = {}

    @model_validator(mode="after")
    def _unique_series(self) -> Operation:
        owner: dict[str, str] = {}
        clashes = []
        for name, source in self.sources.items():
            for series in source.series:
                if series.id in owner:
                    clashes.append(f"{series.id} (sources {owner[series.id]} and {name})")
                owner[series.id] = name
        if clashes:
            raise ValueError(f"series ids are unique over all sources: {'; '.join(clashes)}")
        offices: dict[str, str] = {}
        for name, source in self.sources.items():
            other = offices.setdefault(source.customs.origin, name) if source.customs else name
            if other != name:
                raise ValueError(f"sources {other} and {name} count the imports of one origin: they would be added")
        return self

    @field_validator("subscribers")
    @classmethod
    def _unique_subscribers(cls, given: tuple[Subscriber, ...]) -> tuple[Subscriber, ...]:
        if twice := named_twice(given):
            raise ValueError(f"subscribers of the same name: {', '.join(twice)}")
        return given

    def series(self) -> dict[str, Series]:
        """All series of all sources by id."""
        return {s.id: s for source in self.sources.values() for s in source.series}

    def source_of(self) -> dict[str, str]:
        """The source of each series, by series id."""
        return {s.id: name for name, source in self.sources.items() for s in source.series}


# ---------------------------------------------------------------------------------- methodology

Month = Annotated[str, Field(pattern=r"^(\d{4}-(0[1-9]|1[0-2]))?$")]
Sentence = Annotated[str, Field(min_length=1)]

CONSULTATION = {
    "id", "title", "status", "proposed", "comments_until", "effective", "rationale", "changes", "comments", "text",
}  # fmt: skip
"""Keys of a methodology document that make no figure."""


class Code(Settings):
    """One tariff code over its life: what it counts, and how sure that is. A line of ``codes.csv``."""

    system: System
    code: str = Field(pattern=r"^\d{8}(\d\d)?$")
    mineral: Slug
    stage: Slug = Field(description="the product, as in the address of the indicator: metal, carbonate, apt …")
    element: str = Field(default="", description="chemical symbol; empty: no single element, counted per product")
    title: str
    valid_from: Month = Field(default="", description="first month; empty: before all history that is asked for")
    valid_to: Month = Field(default="", description="last month; empty: still valid")
    units: tuple[str, ...] = Field(description="units that the publisher must show, in its order: KG, CKG, NO, T, PTG")
    content: float | None = Field(default=None, gt=0, le=1, description="element's mass share of a gross kilogram")
    content_source: str = ""
    stem: str = Field(default="", description="codes that split or merged without remainder share a stem")
    certainty: Literal["confirmed", "unconfirmed"]
    note: str = ""
    source: str

    @model_validator(mode="after")
    def _whole(self) -> Code:
        if len(self.code) != {"CN8": 8, "HTS10": 10}[self.system]:
            raise ValueError(f"{self.system} codes have {8 if self.system == 'CN8' else 10} digits")
        if self.content is not None and not self.element:
            raise ValueError("content is the share of an element: name the element")
        return self

    @property
    def line(self) -> str:
        """What is one product over time: the stem, or the code itself."""
        return self.stem or self.code

    @property
    def basis(self) -> Literal["contained", "product", "none"]:
        """What the mass that is read counts: contained metal where the publisher gives it."""
        if set(self.units) & {"CKG", "PTG", "PDG"}:
            return "contained"
        return "product" if set(self.units) & {"KG", "T"} else "none"

    def valid(self, month: str) -> bool:
        """Tell whether the code is in force in a month."""
        return self.valid_from <= month and (not self.valid_to or month <= self.valid_to)


class Trade(Settings):
    """How customs cells become indicators. The rules are ours where no manual prescribes them."""

    codes: str = Field(description="file of the tariff codes, beside this document")
    window_months: int = Field(ge=1, description="months summed into one figure, labelled by the last")
    reference_months: int = Field(ge=1, description="months before, whose median a unit value is judged against")
    min_reference_months: int = Field(ge=1, description="fewest of them; below, the other origin is asked")
    outlier_factor: float = Field(gt=1, description="a cell further than this factor from the reference is doubted")
    corroboration: float = Field(gt=0, le=1, description="share of its move, as logarithm, that others must confirm")
    persistence_months: int = Field(ge=2, description="a doubted level that stands this long is accepted")
    min_months: int = Field(ge=1, description="months with trade in the window, or …")
    min_cells: int = Field(ge=1, description="… cells in the window")
    min_reported: float = Field(gt=0, le=1, description="share of the last year's value whose reporters must be in")
    interval: int = Field(gt=0, lt=100, description="nominal coverage of the interval, per cent")
    widest: float = Field(gt=1, description="no figure whose interval is wider than this factor")
    min_kg: dict[str, float] = Field(description="least mass of a leg and month: mineral/stage, */stage, mineral …")
    geks_window: int = Field(ge=3, description="months of a GEKS window")
    least_correlation: float = Field(ge=-1, le=1, description="a track record below it is a finding")
    quotations: dict[str, str] = Field(default={}, description="market whose quotation checks mineral/stage")

    @field_validator("min_kg")
    @classmethod
    def _has_default(cls, given: dict[str, float]) -> dict[str, float]:
        return _with_every(("default",), given, "trade.min_kg")

    def floor(self, mineral: str, stage: str) -> float:
        """Least kilograms of one leg and month."""
        keys = (f"{mineral}/{stage}", f"*/{stage}", mineral, "default")
        return next(self.min_kg[k] for k in keys if k in self.min_kg)


class Market(Settings):
    """One mineral × stage × zone, and the unit in which its reference price stands."""

    mineral: Slug
    stage: Stage
    zone: Zone
    title: str = ""
    linked: str = Field(
        default="", description="market whose price, times the usual ratio, stands in for a missing one"
    )
    element: str = Field(default="", description="chemical symbol of the priced element")
    per: Literal["contained", "product"] = Field(description="USD per tonne of contained element, or of product")
    anchor: Slug | None = Field(default=None, description="the origin whose level the others are brought to")
    rounding: int = Field(default=2, ge=0, le=8, description="decimals of the published value")
    pure: bool = Field(default=False, description="a tonne of product counts as a tonne of the element in spreads")

    @model_validator(mode="after")
    def _pure_metal(self) -> Market:
        if self.pure and not (self.per == "product" and self.stage == "metal" and self.element):
            raise ValueError("pure is said of a metal that names its element and is priced per product")
        return self

    @property
    def counted(self) -> str:
        """The element of which a tonne is priced; empty where a tonne of product is."""
        return self.element if self.per == "contained" or self.pure else ""

    @property
    def key(self) -> str:
        """``mineral/stage/zone``, as in the address of its document."""
        return f"{self.mineral}/{self.stage}/{self.zone}"

    @property
    def unit(self) -> str:
        """Unit of the reference price, in words that a partner reads."""
        return f"USD/t {self.element or self.mineral} contained" if self.per == "contained" else "USD/t"


class Determination(Settings):
    """How accepted observations of one market and period become one price."""

    max_spread: float = Field(
        gt=0, description="a contributor further than this share from the median of the others is excluded"
    )
    widest: float = Field(gt=0, description="no price when the remaining origins lie further apart than this share")
    stale_days: dict[Frequency, int] = Field(description="how many days a quotation of that frequency stays usable")
    relaxed_days: dict[Frequency, int] = Field(
        description="how old it may be where nobody quoted the period itself: such a price is an estimate, of grade C"
    )
    tier_weights: dict[Tier, float] = Field(description="weight of an origin in the median by its best tier")
    max_weight: float = Field(
        gt=0,
        lt=0.5,
        description="most that one of three or more origins may weigh; at one half it could pull the price alone",
    )
    carry_days: int = Field(ge=0, le=31, description="days that a last price is shown, carried; it enters no figure")
    interval: int = Field(gt=0, lt=100, description="nominal coverage of the interval of a price, per cent")
    interval_periods: int = Field(ge=20, description="periods whose dispersion of origins the interval rests on")
    grades: dict[Literal["A", "B", "C"], int] = Field(description="fewest independent origins for a grade")
    month_share: float = Field(gt=0, le=1, description="share of the month's quoted days that a mean of days needs")

    @field_validator("stale_days", "relaxed_days", "tier_weights", "grades")
    @classmethod
    def _complete(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        tables = {"tier_weights": Tier, "grades": Literal["A", "B", "C"]}
        keys = tables.get(str(info.field_name), Frequency)
        return _with_every(get_args(keys), given, f"determination.{info.field_name}")


def _with_every(keys: Iterable[str], given: dict[str, Any], where: str) -> dict[str, Any]:
    """Refuse a table that leaves a key out: nothing of the method may go by default."""
    absent = [f"{where}.{k}" for k in keys if k not in given]
    if absent:
        raise ValueError(f"missing, and has no default: {', '.join(absent)}")
    return given


class Fallback(Settings):
    """What stands in where nobody quoted a period, nor shortly before (``determination.relaxed_days``).

    The price of a linked market at the usual ratio; then a last price is carried, for
    ``determination.carry_days``; then there is none.
    """

    window: dict[Literal["daily", "ten-day", "monthly"], int] = Field(
        description="periods before, over which the usual ratio to the linked market is taken"
    )
    limit: dict[Literal["daily", "ten-day", "monthly"], int] = Field(
        description="most periods in a row that may rest on a linked market"
    )

    @field_validator("window", "limit")
    @classmethod
    def _complete(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if low := [k for k, n in given.items() if n < 0]:
            raise ValueError(f"a number of periods below 0: {', '.join(low)}")
        return _with_every(("daily", "ten-day", "monthly"), given, f"fallback.{info.field_name}")


class Control(Settings):
    """A state's restriction of the trade in a mineral: while it is open, prices on its two sides part."""

    mineral: Slug
    zone: Zone = Field(description="zone of the state that restricts")
    since: dt.date
    until: dt.date | None = Field(default=None, description="last day; absent: still open")
    measure: Sentence
    source: Sentence

    @model_validator(mode="after")
    def _in_order(self) -> Control:
        if self.until is not None and self.until < self.since:
            raise ValueError(f"until {self.until} is before since {self.since}")
        return self

    def open_in(self, first: dt.date, last: dt.date) -> bool:
        """Tell whether it was open on any day of a span."""
        return self.since <= last and (self.until is None or first <= self.until)


class Forecasting(Settings):
    """What is forecast how far ahead, and when a model may stand in for the benchmark."""

    horizons: dict[Literal["daily", "monthly"], int] = Field(description="periods ahead; a frequency left out has none")
    levels: tuple[int, ...] = Field(min_length=1, description="nominal coverage of the bounds, per cent")
    enter: float = Field(gt=0, lt=1, description="a model is published from a review on whose test is below this")
    leave: float = Field(gt=0, lt=1, description="and until a review whose test is above this")
    least_origins: int = Field(ge=10, description="fewest origins, with all horizons observed, that it may enter on")
    review_months: tuple[int, ...] = Field(min_length=1, description="months that begin with a review")
    first: dict[Literal["daily", "monthly"], int] = Field(description="observations before the first origin of a test")
    step: dict[Literal["daily", "monthly"], int] = Field(description="periods between two origins of a test")
    most_origins: int = Field(ge=10, description="origins of a test at most: the latest")

    @model_validator(mode="after")
    def _whole(self) -> Forecasting:
        if not self.enter <= self.leave:
            raise ValueError(f"forecasts.enter {self.enter} is above leave {self.leave}")
        if wrong := [m for m in self.review_months if not 1 <= m <= 12]:
            raise ValueError(f"forecasts.review_months: no months of the year: {wrong}")
        if outside := [n for n in self.levels if not 0 < n < 100]:
            raise ValueError(f"forecasts.levels: per cent between 0 and 100, not {outside}")
        for name in ("first", "step"):
            if absent := [f for f in self.horizons if getattr(self, name).get(f, 0) < 1]:
                raise ValueError(f"forecasts.{name}: missing, or below 1: {', '.join(absent)}")
        if low := [f for f, n in self.horizons.items() if n < 1]:
            raise ValueError(f"forecasts.horizons: below 1: {', '.join(low)}")
        return self


class Severity(Settings):
    """A level of severity: both sizes must be reached."""

    percent: float = Field(ge=0, description="least change since the last value before the onset, per cent")
    sigmas: float = Field(ge=0, description="least change in standard deviations of the usual one over as many periods")


class Watching(Settings):
    """Which movements raise an alarm, when they are over, how severe they are, and what makes several of them one."""

    false_alarms: dict[str, float] = Field(description="wanted of each kind, per series and year")
    over: dict[str, int] = Field(description="observations without an alarm that end a shock")
    severity: tuple[Severity, ...] = Field(min_length=4, max_length=4, description="least sizes of severity 1 to 4")
    along: float = Field(gt=0, le=1, description="share of a move from which another series has moved along")
    persisted: int = Field(ge=1, description="observations after which a move that stands is no error of one day")
    common_minerals: int = Field(ge=2, description="minerals whose shocks together are one event")
    common_days: int = Field(ge=0, description="most days between the first alarms of two of them")

    @model_validator(mode="after")
    def _whole(self) -> Watching:
        if set(self.false_alarms) != set(ALARMS):
            raise ValueError(f"shocks.false_alarms: one for each of {', '.join(ALARMS)}")
        if low := [kind for kind, wanted in self.false_alarms.items() if not 0 < wanted <= 12]:
            raise ValueError(f"shocks.false_alarms: above 0 and at most 12 a year: {', '.join(low)}")
        if set(self.over) != set(WATCHED) or min(self.over.values()) < 1:
            raise ValueError(f"shocks.over: one of at least 1 for each of {', '.join(WATCHED)}")
        for lower, higher in pairwise(self.severity):
            if higher.percent < lower.percent or higher.sigmas < lower.sigmas:
                raise ValueError("shocks.severity: each level is at least as large as the one before")
        return self


class Basis(Settings):
    """How the lasting difference of an origin from the market's anchor is estimated and held."""

    review_month: int = Field(ge=1, le=12)
    window_months: int = Field(ge=1)
    min_common: dict[Literal["daily", "weekly", "ten-day", "monthly"], int] = Field(
        description="fewest common periods for an estimate, by the frequency of the rarer quoted origin"
    )

    @field_validator("min_common")
    @classmethod
    def _complete(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _with_every(("daily", "weekly", "ten-day", "monthly"), given, "basis.min_common")


class Constituent(Settings):
    """A market in a basket, and where its weight comes from."""

    mineral: Slug
    stage: Stage
    zone: Zone
    production: str = Field(description="id of the production series, or of the tonnages, that weigh this market")
    share: float = Field(default=1, gt=0, le=1, description="share of that tonnage that this market stands for")
    share_source: str = ""
    value_price: float | None = Field(
        default=None,
        gt=0,
        description="USD/t of the market's unit: weighs a market that has no own price, for coverage",
    )
    value_price_source: str = ""
    since: Month = Field(default="", alias="from", description="link month at which it joins; empty: always there")
    until: Month = Field(default="", description="link month at which it ceases; empty: it stays")

    @property
    def key(self) -> str:
        """``mineral/stage/zone``."""
        return f"{self.mineral}/{self.stage}/{self.zone}"

    def alive(self, link: str) -> bool:
        """Tell whether it is in the basket that is set at a link month, and holds until the next."""
        return self.since <= link and (not self.until or link < self.until)


class Basket(Settings):
    """A capped fixed-basket index, linked each year."""

    title: str
    base_period: str = Field(pattern=r"^\d{4}(-(0[1-9]|1[0-2]))?$", description="a month or a year = 100")
    link_month: int = Field(default=3, ge=1, le=12)
    review: int = Field(ge=1, le=12, description="month of the year in which its constituents and rules are reviewed")
    cap: float = Field(gt=0, le=1)
    min_weight: float = Field(ge=0, le=1, description="least share of the weight with own prices for a value")
    min_coverage: float = Field(
        default=0,
        ge=0,
        le=1,
        description="least share of the listed weight with own prices for the index to bear this name",
    )
    rounding: int = Field(default=2, ge=0, le=8)
    constituents: tuple[Constituent, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _cap_possible(self) -> Basket:
        keys = [c.key for c in self.constituents]
        if len(set(keys)) < len(keys):
            raise ValueError("a market stands in the basket twice")
        for month in sorted({"", *(m for c in self.constituents for m in (c.since, c.until))}):
            n = len(self.alive(month))
            when = f" from {month}" if month else ""
            if not n:
                raise ValueError(f"there is no constituent{when or ' at first'}")
            if self.cap < 1 / n:
                raise ValueError(f"cap {self.cap} is below 1/{n}{when}: no weights can satisfy it")
        return self

    @model_validator(mode="after")
    def _joined_at_links(self) -> Basket:
        for c in self.constituents:
            for key, month in (("from", c.since), ("until", c.until)):
                if month and int(month[5:]) != self.link_month:
                    raise ValueError(f"{c.key}: {key} {month} is not a link month (month {self.link_month})")
            if c.until and c.until <= c.since:
                raise ValueError(f"{c.key}: until {c.until} is not after from {c.since}")
        return self

    def alive(self, link: str) -> tuple[Constituent, ...]:
        """Constituents of the basket that is set at a link month; with an empty month those of its beginning."""
        return tuple(c for c in self.constituents if c.alive(link))


class ImportBasket(Settings):
    """Products whose imports make one index of unit values per origin."""

    title: str
    base_period: str = Field(pattern=r"^\d{4}$", description="a year = 100")
    products: tuple[str, ...] = Field(default=(), description="mineral/stage; empty: all")
    min_items: int = Field(ge=2, description="fewest products and legs that two months must share")
    min_covered: float = Field(ge=0, le=1, description="least share of the traded value that has a unit value")
    rounding: int = Field(default=1, ge=0, le=8)


class TwinRules(Settings):
    """How the analytical twins of an index are compiled; they judge it and enter no figure."""

    risk_months: int = Field(ge=2, description="months before a link whose changes measure volatility")
    min_changes: int = Field(ge=2, description="fewest monthly changes among them for a volatility")
    geks_window: int = Field(ge=3, description="months of a GEKS window of the superlative twin")

    @model_validator(mode="after")
    def _changes_possible(self) -> TwinRules:
        if self.min_changes > self.risk_months:
            raise ValueError(
                f"min_changes: {self.min_changes} changes are more than risk_months, {self.risk_months}, has"
            )
        return self


class Tonnage(Settings):
    """A figure of world production from another source than a collected one, for one year, as it was published."""

    id: Slug = Field(description="by which constituents name it as their production")
    mineral: Slug
    element: str = Field(min_length=1, description="what the tonnes count: a chemical symbol, or the product")
    period: str = Field(pattern=r"^\d{4}$", description="the year of the production")
    tonnes: float = Field(gt=0, description="metric tonnes")
    source: str = Field(min_length=1, description="author, title, edition, page or table")
    published: dt.date = Field(description="known from the end of this day on")
    note: str = ""

    @model_validator(mode="after")
    def _not_of_the_future(self) -> Tonnage:
        if self.published.year < int(self.period):
            raise ValueError(f"published: {self.published} is before the year {self.period}, whose production it is")
        return self


class Comment(Settings):
    """What somebody said of a proposed change, and what was answered."""

    by: str = Field(min_length=1)
    received: dt.date
    comment: str = Field(min_length=1)
    answer: str = ""


class Rebate(Settings):
    """What China refunds of its value-added tax when a product is exported, from a day on.

    An entry also says that the product bears the standard rate and that China's price of it is a domestic one.
    """

    mineral: Slug
    stage: Stage
    since: dt.date = Field(ge=dt.date(1994, 1, 1), description="first day of export on which the rate holds")
    rate: float = Field(ge=0, le=0.17, description="share of the price without tax: 0.13 means 13 %; 0 is no refund")
    source: str = Field(min_length=1)
    note: str = ""


class StagePair(Settings):
    """Two stages of a mineral: the price of the upper one less that of the lower one, by month."""

    mineral: Slug
    upper: Stage
    lower: Stage
    zone: Zone
    lower_zone: Zone | None = Field(default=None, description="where the lower stage is priced, if not in the zone")

    @property
    def keys(self) -> tuple[str, str]:
        """Markets of the upper and of the lower stage."""
        upper, lower = f"{self.mineral}/{self.upper}/{self.zone}", f"{self.mineral}/{self.lower}"
        return upper, f"{lower}/{self.lower_zone or self.zone}"


class Methodology(Settings):
    """``methodology/*.toml``: how figures are made, as data. ``sha256`` stands in every figure."""

    id: str = Field(pattern=r"^\d{4}-\d{2}$")
    title: str
    status: Literal["initial", "change"]
    proposed: dt.date
    comments_until: dt.date | None = Field(default=None, description="last day for comments on a change")
    effective: dt.date
    notice_days: int = Field(ge=1, description="least days from a proposal to its effect, while this is in force")
    rationale: str = Field(default="", description="why the method is changed")
    changes: tuple[Sentence, ...] = Field(default=(), description="what is changed, in plain sentences")
    comments: tuple[Comment, ...] = Field(default=(), description="what was received, with the answers")
    text: str = ""
    determination: Determination
    fallback: Fallback
    controls: tuple[Control, ...] = Field(default=(), description="trade controls, by mineral and zone")
    basis: Basis
    markets: tuple[Market, ...]
    baskets: dict[Slug, Basket]
    twins: TwinRules
    tonnages: tuple[Tonnage, ...] = ()
    trade: Trade | None = None
    imports: dict[Slug, ImportBasket] = {}
    forecasts: Forecasting | None = Field(default=None, description="absent: nothing is forecast")
    shocks: Watching | None = Field(default=None, description="absent: nothing is watched")
    gap_days: int = Field(default=0, ge=0, le=7, description="most days between the two sides of a daily gap")
    rebates: tuple[Rebate, ...] = ()
    spreads: tuple[StagePair, ...] = ()
    codes: tuple[Code, ...] = Field(default=(), exclude=True, repr=False, description="as the file of codes has them")
    codes_raw: str = Field(default="", exclude=True, repr=False)
    sha256: str = ""
    raw: str = Field(default="", exclude=True, repr=False, description="the document itself, as read")

    @property
    def rules_sha256(self) -> str:
        """Hash of what makes figures: the document without its title, proposal and consultation."""
        rules = {key: value for key, value in tomllib.loads(self.raw).items() if key not in CONSULTATION}
        return hashlib.sha256(orjson.dumps(rules, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def codes_sha256(self) -> str | None:
        """Hash of the file of tariff codes; None where there is none."""
        return hashlib.sha256(self.codes_raw.encode()).hexdigest() if self.codes_raw else None

    @model_validator(mode="after")
    def _proposed_whole(self) -> Methodology:
        if self.status == "initial":
            return self
        lacking = [key for key in ("comments_until", "rationale", "changes") if not getattr(self, key)]
        if lacking:
            raise ValueError(f"a change says {', '.join(lacking)} too")
        assert self.comments_until is not None
        if self.effective <= self.proposed:
            raise ValueError(f"effective: {self.effective} is not after proposed, {self.proposed}")
        if not self.proposed <= self.comments_until <= self.effective:
            raise ValueError(
                f"comments_until: {self.comments_until} is outside the days from proposed, {self.proposed}, "
                f"to effective, {self.effective}"
            )
        return self

    @model_validator(mode="after")
    def _baskets_priced(self) -> Methodology:
        known = {m.key for m in self.markets}
        unknown = [
            f"baskets.{name}: no market {c.key}"
            for name, basket in self.baskets.items()
            for c in basket.constituents
            if c.key not in known
        ]
        unknown += self._wrong_rebates() + self._wrong_spreads() + self._wrong_links() + self._wrong_tonnages()
        if unknown:
            raise ValueError("; ".join(unknown))
        return self

    def _wrong_links(self) -> list[str]:
        markets, out = {m.key: m for m in self.markets}, []
        for one in (m for m in self.markets if m.linked):
            other = markets.get(one.linked)
            if other is None or other is one:
                out.append(f"markets {one.key}: linked: no other market {one.linked}")
            elif (other.mineral, other.unit) != (one.mineral, one.unit):
                out.append(f"markets {one.key}: linked: {one.linked} is not the same mineral in the same unit")
            elif other.linked:
                out.append(f"markets {one.key}: linked: {one.linked} is linked itself: links have one step")
        return out

    def _wrong_rebates(self) -> list[str]:
        known, seen, out = {(m.mineral, m.stage) for m in self.markets}, set(), []
        for i, one in enumerate(self.rebates):
            if (one.mineral, one.stage) not in known:
                out.append(f"rebates.{i}: no market {one.mineral}/{one.stage} in any zone")
            if one.stage in ("ore", "concentrate") and one.since < dt.date(2009, 1, 1):
                out.append(f"rebates.{i}.since: ores and concentrates bore another tax before 2009-01-01")
            if (one.mineral, one.stage, one.since) in seen:
                out.append(f"rebates.{i}: a second rate of {one.mineral}/{one.stage} from {one.since}")
            seen.add((one.mineral, one.stage, one.since))
        return out

    def _wrong_tonnages(self) -> list[str]:
        seen, counted, out = set(), dict[str, tuple[str, str]](), []
        for i, one in enumerate(self.tonnages):
            if (one.id, one.period, one.published) in seen:
                out.append(f"tonnages.{i}: a second figure of {one.id} for {one.period}, published {one.published}")
            seen.add((one.id, one.period, one.published))
            first = counted.setdefault(one.id, (one.mineral, one.element))
            if first != (one.mineral, one.element):
                now, before = f"{one.element} of {one.mineral}", f"{first[1]} of {first[0]}"
                out.append(f"tonnages.{i}: {one.id} counts {now} here, and {before} in an earlier line")
        return out

    def _wrong_spreads(self) -> list[str]:
        markets, seen, out = {m.key: m for m in self.markets}, set(), []
        for i, pair in enumerate(self.spreads):
            missing = [key for key in pair.keys if key not in markets]
            out += [f"spreads.{i}: no market {key}" for key in missing]
            elements = [] if missing else [markets[key].counted for key in pair.keys]
            if elements and not (elements[0] and elements[0] == elements[1]):
                out.append(f"spreads.{i}: {' and '.join(pair.keys)} are not priced per tonne of one element")
            if pair.upper == pair.lower:
                out.append(f"spreads.{i}: {pair.upper} over itself")
            name = (pair.mineral, pair.zone, pair.upper, pair.lower)
            if name in seen:
                out.append(f"spreads.{i}: {pair.upper} over {pair.lower} of {pair.mineral}/{pair.zone} stands twice")
            seen.add(name)
        return out


class ReplicaMember(Settings):
    """A price column of the publisher's table, and the publisher's own weight of it."""

    column: str = Field(min_length=1)
    aliases: tuple[str, ...] = Field(default=(), description="names the same column bore in other vintages")
    weight: float = Field(gt=0, description="on the publisher's scale; shares are taken over the members")


class Replica(Settings):
    """Somebody else's index, rebuilt from their prices and weights: fixed base, unchained, uncapped."""

    title: str
    index: str = Field(min_length=1, description="the publisher's name of the index that it is compared with")
    formula: Literal["young"] = Field(description="value shares over the relatives to the mean price of the base")
    base_period: str = Field(pattern=r"^\d{4}$", description="a year, whose mean price is the base and whose level 100")
    tolerance: float = Field(ge=0, description="largest difference, absolute and relative, that rounding explains")
    members: tuple[ReplicaMember, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _columns_once(self) -> Replica:
        names = [m.column for m in self.members]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"a column stands in the basket twice: {', '.join(twice)}")
        return self


class Replicas(Settings):
    """``methodology/replicas/SOURCE.toml``: indices of one publisher that our formulas must reproduce."""

    publisher: str
    weights: str = Field(description="where the publisher states them")
    baskets: dict[Slug, Replica] = Field(min_length=1)


# --------------------------------------------------------------------------------------- loading


def load_operation(path: Path) -> Operation:
    """Read and validate ``config.toml``, and the file of subscribers that it names.

    Raises ConfigError that lists every mistake.
    """

    def validate(data: dict[str, Any]) -> Operation:
        alerts = data.get("alerts")
        name = alerts.get("subscribers") if isinstance(alerts, dict) else None
        if isinstance(name, str) and name:
            if "subscribers" in data:
                raise ConfigError(f"{path}: subscribers stand here and in {name}: keep them in one place")
            listed = _toml(path.parent / name)
            if other := sorted(listed.keys() - {"subscribers"}):
                raise ConfigError(f"{path.parent / name}: holds [[subscribers]] only, not {', '.join(other)}")
            data = {**data, **listed}
        return Operation.model_validate(data)

    return _validated(path, validate)


def load_methodology(folder: Path, on: dt.date | None = None) -> Methodology:
    """Read the methodology document in force (or the named file), with its hash.

    Parameters
    ----------
    folder : Path
        Holds one document for each change of method.
    on : date
        The newest document that is effective by this day; the initial one governs all days before it.

    Raises
    ------
    ConfigError
        When there is none, when one holds a mistake, or when a change comes before its notice has run.
    """
    known = load_methodologies(folder)
    return known.documents[-1] if on is None else known.in_force(on)


@dataclass(frozen=True)
class Methodologies:
    """All documents of one method, in the order of their days of effect."""

    documents: tuple[Methodology, ...]

    def in_force(self, on: dt.date) -> Methodology:
        """Return what governs a day; the initial document governs all days before it too."""
        return ([m for m in self.documents if m.effective <= on] or [self.documents[0]])[-1]

    def earlier(self, on: dt.date) -> tuple[Methodology, ...]:
        """Return what governed before, oldest first."""
        return self.documents[: self.documents.index(self.in_force(on))]

    def pending(self, on: dt.date) -> tuple[Methodology, ...]:
        """Return the changes that are proposed and not yet in force, in the order of their effect."""
        return self.documents[self.documents.index(self.in_force(on)) + 1 :]


def load_methodologies(folder: Path, *further: Path) -> Methodologies:
    """Read every methodology document of a folder (or one named file), and check that each change kept its notice.

    Parameters
    ----------
    folder : Path
    further : Path
        Documents that are not in the folder yet: proposals to be checked.

    Raises
    ------
    ConfigError
        When there is no document, when one holds a mistake, when ids do not grow with the days of effect,
        or when a change is to take effect before its notice has run.
    """
    files = sorted(folder.glob("*.toml")) if folder.is_dir() else [folder]
    if not files:
        raise ConfigError(f"{folder}: no methodology document (*.toml)")
    inside = {path.resolve() for path in files}
    files += [path for path in further if path.resolve() not in inside]
    read = sorted(((_methodology(path), path) for path in files), key=lambda pair: pair[0].effective)
    known = Methodologies(tuple(document for document, _ in read))
    if folder.is_dir():
        mistakes = [line for n, (_, path) in enumerate(read) for line in _out_of_turn(known, n, path)]
        if mistakes:
            raise ConfigError("\n".join(mistakes))
    return known


def _out_of_turn(known: Methodologies, n: int, path: Path) -> Iterable[str]:
    """Say why a document may not follow those before it."""
    this = known.documents[n]
    if this.status != ("change" if n else "initial"):
        yield f"{path}: status: the first document, and only that, is 'initial' (got {this.status!r})"
    if not n:
        return
    before = known.documents[n - 1]
    if this.effective == before.effective:
        yield f"{path}: effective: {this.effective} is the day of {before.id} too"
    if this.id <= before.id:
        yield f"{path}: id: {this.id} does not come after {before.id}, which takes effect before it"
    in_force = known.in_force(this.proposed)
    earliest = earliest_day(this.proposed, in_force)
    if this.effective < earliest:
        yield (
            f"{path}: effective: {this.effective} comes before the notice has run: proposed {this.proposed} and "
            f"{in_force.notice_days} days (notice_days of {in_force.id}, in force then): the earliest day is {earliest}"
        )


def earliest_day(proposed: dt.date, in_force: Methodology) -> dt.date:
    """Return the first day on which a change may take effect: the notice is set by the method in force."""
    return proposed + dt.timedelta(days=in_force.notice_days)


def _methodology(path: Path) -> Methodology:
    raw = _read(path)
    read: dict[str, Any] = {"sha256": hashlib.sha256(raw).hexdigest(), "raw": raw.decode("utf-8", "replace")}
    made = _validated(path, lambda data: Methodology.model_validate({**data, **read}))
    if made.trade is None:
        return made
    codes = path.parent / made.trade.codes
    text = _read(codes).decode("utf-8")
    return made.model_copy(update={"codes": load_codes(codes, text), "codes_raw": text})


def load_codes(path: Path, text: str) -> tuple[Code, ...]:
    """Read a file of tariff codes. Raises ConfigError that lists every mistake with its line."""
    mistakes: list[str] = []
    out: list[Code] = []
    seen: dict[tuple[str, str, str], int] = {}
    per: dict[tuple[str, str], tuple[int, bool]] = {}
    for number, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        given: dict[str, Any] = {k: v for k, v in row.items() if v and k != "units"}
        try:
            code = Code.model_validate({**given, "units": tuple((row.get("units") or "").split())})
        except ValidationError as error:
            mistakes += [f"  line {number}:{line}" for line in _lines(error)]
            continue
        twin = seen.setdefault((code.system, code.code, code.valid_from), number)
        if twin != number:
            mistakes.append(f"  line {number}: {code.system} {code.code} stands in line {twin} already")
        contained = bool(code.element and (code.content or code.basis == "contained"))
        first, before = per.setdefault((code.mineral, code.stage), (number, contained))
        if before != contained:
            mistakes.append(
                f"  line {number}: {code.mineral}/{code.stage} is counted per "
                f"{'contained tonne' if contained else 'tonne of product'} here, otherwise in line {first}"
            )
        for life in (c for c in out if (c.system, c.code) == (code.system, code.code)):
            if life.valid_from <= (code.valid_to or "9999") and code.valid_from <= (life.valid_to or "9999"):
                mistakes.append(f"  line {number}: {code.system} {code.code} has another life in the same months")
        out.append(code)
    if mistakes:
        raise ConfigError(f"{path}: {_count(len(mistakes))}\n" + "\n".join(mistakes))
    return tuple(out)


def load_replicas(folder: Path, source: str) -> Replicas:
    """Read the indices of a source that are reproduced. Raises ConfigError that lists every mistake.

    Parameters
    ----------
    folder : Path
        Holds one file for each source.
    source : str
        Name of the source, and of its file.
    """
    path = folder / f"{source}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml"))) or "none"
        raise ConfigError(f"{path}: no index of source {source!r} is reproduced; there are those of: {known}")
    return _validated(path, Replicas.model_validate)


def methodology_bytes(methodology: Methodology) -> bytes:
    """Return the methodology document as it was read: the bytes that its hash is of."""
    return methodology.raw.encode()


def canonical(model: BaseModel, without: set[str] | None = None) -> bytes:
    """Return the settings as sorted JSON: what is hashed and archived with a release."""
    return orjson.dumps(model.model_dump(mode="json", exclude=without), option=orjson.OPT_SORT_KEYS)


def check_references(operation: Operation, methodology: Methodology) -> None:
    """Check that the two files fit: weights name production series, markets are quoted somewhere.

    Raises ConfigError with every mistake.
    """
    series = operation.series()
    mistakes = [
        f"tonnages: {one} is the id of a series too"
        for one in sorted({t.id for t in methodology.tonnages} & set(series))
    ]
    for name, basket in methodology.baskets.items():
        for i, part in enumerate(basket.constituents):
            weight = series.get(part.production)
            if weight is not None and weight.kind != "production":
                mistakes.append(
                    f"baskets.{name}.constituents.{i}.production: {part.production} is a {weight.kind} series"
                )
    markets = {m.key for m in methodology.markets}
    for s in series.values():
        if s.kind == "price" and s.mineral and not s.quarantined and f"{s.mineral}/{s.stage}/{s.zone}" not in markets:
            mistakes.append(f"series {s.id}: the methodology has no market {s.mineral}/{s.stage}/{s.zone}")
    minerals = {m.mineral for m in methodology.markets}
    for i, who in enumerate(operation.subscribers):
        lost = [f"minerals: {m}" for m in who.minerals if m not in minerals]
        lost += [f"indices: {name}" for name in who.indices if name not in methodology.baskets]
        mistakes += [f"subscribers.{i} ({who.name}).{one} is not in the methodology" for one in lost]
    if mistakes:
        raise ConfigError("config.toml and the methodology do not fit:\n  " + "\n  ".join(mistakes))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _validated(path: Path, validate: Callable[[dict[str, Any]], _M]) -> _M:
    data = _toml(path)
    try:
        return validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_count(error.error_count())}\n" + "\n".join(_lines(error))) from error


def _count(n: int) -> str:
    return "one mistake" if n == 1 else f"{n} mistakes"


def _lines(error: ValidationError) -> Iterable[str]:
    for e in error.errors(include_url=False):
        where = ".".join(str(part) for part in e["loc"]) or "(whole file)"
        if e["type"] == "extra_forbidden":
            yield f"  {where}: unknown key"
        elif e["type"] == "missing":
            yield f"  {where}: missing, and has no default"
        else:
            got = repr(e["input"])
            shown = "" if len(got) > 80 else f" (got {got})"
            yield f"  {where}: {e['msg'].removeprefix('Value error, ')}{shown}"
