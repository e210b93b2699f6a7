import copy
import tomllib
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import config
from pricing.config import Rights, Series
from pricing.errors import ConfigError

OPERATION = """
data = "data"

[publish]
schedule = "0 14 * * mon-fri"
time_zone = "Europe/Berlin"

[web]
port = 8080

[sources.bank]
title = "Prices of a bank"
publisher = "A Bank"
url = "https://bank.example/prices.csv"
terms = "https://bank.example/terms"
terms_read = 2026-11-23
licence = "CC BY 4.0"
attribution = "A Bank, CC BY 4.0"
rights = "open"
schedule = "30 10 * * *"

[sources.bank.table]
date = "Date"

[[sources.bank.series]]
id = "bank-copper"
mineral = "copper"
stage = "metal"
zone = "XCN"
unit = "USD/t"
frequency = "monthly"
origin = "lme"

[sources.survey]
title = "Mine production"
publisher = "A Survey"
terms = "https://survey.example/terms"
terms_read = 2026-11-23
licence = "public domain"
attribution = "A Survey"
rights = { publish_value = true, publish_derived = true }

[[sources.survey.series]]
id = "survey-copper"
kind = "production"
unit = "kt"
frequency = "annual"
origin = "survey"
"""

METHOD = """
id = "2026-11"
title = "A method"
status = "initial"
proposed = 2026-11-02
effective = 2026-11-23
notice_days = 28

[determination]
max_spread = 0.15
max_weight = 0.49
carry_days = 3
interval = 80
interval_periods = 250
widest = 0.3
grades = { A = 3, B = 2, C = 1 }
month_share = 0.5

[determination.stale_days]
daily = 0
weekly = 6
ten-day = 0
monthly = 0
annual = 0

[determination.relaxed_days]
daily = 0
weekly = 13
ten-day = 0
monthly = 0
annual = 0

[determination.tier_weights]
transaction = 1.0
committed = 0.9
official = 0.8
assessment = 0.7
model = 0.3

[fallback]
window = { daily = 60, ten-day = 18, monthly = 12 }
limit = { daily = 10, ten-day = 3, monthly = 2 }

[basis]
review_month = 1
window_months = 12

[basis.min_common]
daily = 20
weekly = 8
ten-day = 9
monthly = 6

[twins]
risk_months = 36
min_changes = 24
geks_window = 25

[[markets]]
mineral = "copper"
stage = "metal"
zone = "XCN"
per = "product"

[baskets.metals]
title = "Metals"
base_period = "2025"
review = 2
cap = 1.0
min_weight = 0.6

[[baskets.metals.constituents]]
mineral = "copper"
stage = "metal"
zone = "XCN"
production = "survey-copper"
"""


def toml(value: object) -> str:
    """One line of TOML for any settings value: tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}" = {toml(v)}' for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return orjson.dumps(value).decode() if isinstance(value, str | bool | int | float) else str(value)


def load(folder: Path, name: str, text: str):
    path = folder / ("config.toml" if name == "operation" else "2026-11.toml")
    path.write_text(text, "utf-8")
    return config.load_operation(path) if name == "operation" else config.load_methodology(path)


def refusal(folder: Path, name: str, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, name, text)
    return str(caught.value)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_the_small_settings_are_valid_and_fit(tmp_path):
    made = load(tmp_path, "operation", OPERATION)
    assert made.source_of() == {"bank-copper": "bank", "survey-copper": "survey"}
    assert set(made.series()) == {"bank-copper", "survey-copper"}
    config.check_references(made, load(tmp_path, "method", METHOD))


def test_every_mistake_is_told_at_once_with_file_path_and_what_was_expected(tmp_path):
    text = replaced(
        OPERATION,
        ('schedule = "0 14 * * mon-fri"', 'schedule = "0 14 * *"'),
        ('time_zone = "Europe/Berlin"', 'time_zone = "Europe/Berlon"'),
        ("port = 8080", "port = 80800\nworker = 2"),
        ('licence = "CC BY 4.0"\n', ""),
        ('frequency = "monthly"', 'frequency = "often"'),
        ('unit = "kt"', "unit = 3"),
        ("publish_derived = true", 'publish_derived = "perhaps"'),
    )
    first, *lines = refusal(tmp_path, "operation", text).splitlines()
    assert first == f"{tmp_path / 'config.toml'}: 8 mistakes"
    told = dict(line.strip().split(": ", 1) for line in lines)
    expected = {
        "publish.schedule": "five cron fields",
        "publish.time_zone": "no time zone of that name, such as Europe/Berlin",
        "web.port": "less than or equal to 65535 (got 80800)",
        "web.worker": "unknown key",
        "sources.bank.licence": "missing",
        "sources.bank.series.0.frequency": "'daily', 'weekly', 'ten-day', 'monthly' or 'annual'",
        "sources.survey.series.0.unit": "valid string (got 3)",
        "sources.survey.rights.publish_derived": "boolean",
    }
    assert told.keys() == expected.keys()
    for path, words in expected.items():
        assert words in told[path]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"0 14 * * mon-fri"', '"61 14 * * *"', "publish.schedule: not five cron fields"),
        ('"0 14 * * mon-fri"', '"@daily"', "publish.schedule: not five cron fields"),
        ('"Europe/Berlin"', '""', "publish.time_zone: no time zone"),
        ('"Europe/Berlin"', '"/etc/localtime"', "publish.time_zone: no time zone"),
        ('rights = "open"', 'rights = "free"', "sources.bank: rights are 'open', 'internal' or a table of store"),
        ('url = "https://bank.example/prices.csv"\n', "", "sources.bank: a scheduled source needs a url"),
        ("publish_derived = true", "publish_derived = false", "publish_value without publish_derived"),
        ('id = "bank-copper"', 'id = "Bank copper"', "sources.bank.series.0.id: String should match pattern"),
        ('id = "survey-copper"', 'id = "bank-copper"', "bank-copper (sources bank and survey)"),
        ('stage = "metal"\n', "", "sources.bank.series.0: a price of a mineral names its stage and its zone"),
        ('kind = "production"', 'kind = "fx"', "sources.survey.series.0: an exchange rate names currency_of"),
        ("port = 8080", "port = nan", "web.port"),
        ("[sources.bank.table]", "[sources.Bad_1]\n[sources.bank.table]", "sources.Bad_1.[key]: String should match"),
    ],
)
def test_a_mistake_in_the_operation_is_named(tmp_path, old, new, expected):
    assert expected in refusal(tmp_path, "operation", replaced(OPERATION, (old, new)))


def test_a_series_named_twice_in_one_source_is_named(tmp_path):
    again = OPERATION[OPERATION.index("[[sources.survey.series]]") :]
    assert "sources.survey: series named twice: survey-copper" in refusal(tmp_path, "operation", OPERATION + again)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("cap = 1.0", "cap = 0.99", "baskets.metals: cap 0.99 is below 1/1: no weights can satisfy it"),
        ('base_period = "2025"', 'base_period = "25"', "baskets.metals.base_period: String should match pattern"),
        ("max_spread = 0.15", "max_spread = inf", "determination.max_spread: Input should be a finite number"),
        ("month_share = 0.5", "month_share = 0", "determination.month_share: Input should be greater than 0"),
        ("weekly = 6", "weekley = 6", "determination.stale_days.weekley"),
        ("review_month = 1", "review_month = 13", "basis.review_month: Input should be less than or equal to 12"),
        ('id = "2026-11"', 'id = "2026-11b"', "id: String should match pattern"),
        ('zone = "XCN"\nproduction', 'zone = "CN"\nproduction', "baskets.metals: no market copper/metal/CN"),
        ('per = "product"', 'per = "pound"', "markets.0.per: Input should be 'contained' or 'product'"),
    ],
)
def test_a_mistake_in_the_method_is_named(tmp_path, old, new, expected):
    message = refusal(tmp_path, "method", replaced(METHOD, (old, new)))
    assert message.startswith(str(tmp_path / "2026-11.toml")) and expected in message


def test_a_market_twice_in_a_basket_is_refused(tmp_path):
    again = METHOD[METHOD.index("[[baskets") :]
    assert "a market stands in the basket twice" in refusal(tmp_path, "method", METHOD + again)


@pytest.mark.parametrize(
    ("which", "old", "new", "expected"),
    [
        ("method", 'n = "survey-copper"', 'n = "bank-copper"', "constituents.0.production: bank-copper is a price"),
        ("operation", '"XCN"', '"CN"', "series bank-copper: the methodology has no market copper/metal/CN"),
    ],
)
def test_two_files_that_do_not_fit_are_refused(tmp_path, which, old, new, expected):
    texts = {"operation": OPERATION, "method": METHOD}
    texts[which] = replaced(texts[which], (old, new))
    made = [load(tmp_path, name, text) for name, text in texts.items()]
    with pytest.raises(ConfigError, match=expected):
        config.check_references(*made)


def test_a_quarantined_series_needs_no_market(tmp_path):
    text = replaced(OPERATION, ('"XCN"', '"CN"\nquarantined = "its unit is doubtful"'))
    config.check_references(load(tmp_path, "operation", text), load(tmp_path, "method", METHOD))


def test_presets_of_rights_stand_for_all_and_for_what_stays_inside():
    everything, inside = Rights.preset("open"), Rights.preset("internal")
    assert all(everything.model_dump().values())
    assert {name for name, allowed in inside.model_dump().items() if allowed} == {"store", "compute", "show_auditor"}


def test_settings_are_frozen(tmp_path):
    made = load(tmp_path, "operation", OPERATION)
    with pytest.raises(ValueError, match="frozen"):
        made.web.port = 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"data = ", "not TOML"), (b"data = '\xff'", "not TOML"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read_is_a_settings_error(tmp_path, content, expected):
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        config.load_operation(path)


def test_a_folder_without_a_method_is_refused_and_the_hash_is_of_the_bytes(tmp_path):
    with pytest.raises(ConfigError, match="no methodology document"):
        config.load_methodology(tmp_path)
    made, again = load(tmp_path, "method", METHOD), load(tmp_path, "method", METHOD + "# a remark\n")
    assert made.sha256 != again.sha256
    assert config.methodology_bytes(again) == (METHOD + "# a remark\n").encode()
    assert config.load_methodology(tmp_path) == again


@pytest.mark.parametrize(
    ("glob", "name", "read"),
    [
        ("*", "anything.csv", True),
        ("*copper*", "LME_Copper.csv", True),
        ("*copper*", "tin.csv", False),
        ("*tin*.csv | *zinc*", "zinc.json", True),
        ("*tin*.csv|*zinc*", "tin.json", False),
    ],
)
def test_a_series_is_read_from_the_files_that_its_glob_names(glob, name, read):
    facts = {"id": "x", "kind": "other", "unit": "USD/t", "frequency": "daily", "origin": "x", "file": glob}
    assert Series.model_validate(facts).reads(name) is read


# --------------------------------------------------------------------------------- cited tonnages

TONNAGE = """
[[tonnages]]
id = "survey-of-tin"
mineral = "tin"
element = "Sn"
period = "2024"
tonnes = 300_000
source = "A survey, table 3"
published = 2025-02-01
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TONNAGE * 2, "tonnages.1: a second figure of survey-of-tin for 2024, published 2025-02-01"),
        (
            TONNAGE + TONNAGE.replace('"Sn"', '"SnO2"').replace("2025-02", "2026-02"),
            "tonnages.1: survey-of-tin counts SnO2 of tin here, and Sn of tin in an earlier line",
        ),
        (TONNAGE.replace("2025-02", "2023-02"), "tonnages.0: published: 2023-02-01 is before the year 2024"),
        (TONNAGE.replace("300_000", "0"), "tonnages.0.tonnes"),
        (TONNAGE.replace('source = "A survey, table 3"', 'source = ""'), "tonnages.0.source"),
        (TONNAGE.replace("published = 2025-02-01\n", ""), "tonnages.0.published: missing, and has no default"),
    ],
)
def test_a_tonnage_that_is_doubtful_or_unnamed_is_refused(tmp_path, text, told):
    assert told in refusal(tmp_path, "method", METHOD + text)


def test_a_constituent_may_name_a_tonnage_and_its_id_is_no_series(tmp_path):
    operation = load(tmp_path, "operation", OPERATION)
    named = METHOD.replace('production = "survey-copper"', 'production = "survey-of-tin"')
    config.check_references(operation, load(tmp_path, "method", named + TONNAGE))
    taken = load(tmp_path, "method", METHOD + TONNAGE.replace("survey-of-tin", "survey-copper"))
    with pytest.raises(ConfigError, match="tonnages: survey-copper is the id of a series too"):
        config.check_references(operation, taken)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("min_changes = 24", "min_changes = 37", "twins: min_changes: 37 changes are more than risk_months, 36, has"),
        ("geks_window = 25", "geks_window = 2", "twins.geks_window"),
        ("risk_months = 36", "", "twins.risk_months: missing, and has no default"),
    ],
)
def test_twins_that_cannot_be_compiled_are_refused(tmp_path, old, new, told):
    assert told in refusal(tmp_path, "method", replaced(METHOD, (old, new)))


# ------------------------------------------------------------------ any key, deleted or misspelt

DOCUMENTS = {"operation": tomllib.loads(OPERATION), "method": tomllib.loads(METHOD)}
AUTHORS_NAMES = {("sources",), ("baskets",)}  # keys that whoever writes the file chooses
TABLES = {("determination", t) for t in ("stale_days", "relaxed_days", "grades", "tier_weights")} | {
    ("basis", "min_common"),
    ("fallback", "window"),
    ("fallback", "limit"),
}
# Keys whose absence is told of the table that needs them, not of themselves, or is no mistake.
NEEDED_TOGETHER = {
    ("sources", "bank", "url"): "sources.bank: a scheduled source needs a url",
    ("sources", "bank", "series", 0, "stage"): "sources.bank.series.0: a price of a mineral names its stage",
    ("sources", "bank", "series", 0, "zone"): "sources.bank.series.0: a price of a mineral names its stage",
    ("sources", "survey", "rights", "publish_derived"): "sources.survey: publish_value without publish_derived",
}
OPTIONAL = {
    *(("data",), ("publish",), ("publish", "schedule"), ("publish", "time_zone"), ("web",), ("web", "port")),
    *(("sources",), ("sources", "bank", "schedule"), ("sources", "bank", "table")),
    *(("sources", "bank", "table", "date"), ("sources", "bank", "series", 0, "mineral")),
    ("sources", "survey", "series", 0, "kind"),
    ("sources", "survey", "rights", "publish_value"),
}  # fmt: skip


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Every key of a document, as a path."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, inner in pairs:
        found += [(*path, key)] if isinstance(key, str) else []
        found += places(inner, (*path, key))
    return found


KEYS = [
    (name, path)
    for name, data in DOCUMENTS.items()
    for path in places(data)
    if path[:-1] not in AUTHORS_NAMES and path[:-1] not in TABLES
]


def changed(name: str, path: tuple, change) -> str:
    """The document after a change to the table around ``path``."""
    data = copy.deepcopy(DOCUMENTS[name])
    table = data
    for key in path[:-1]:
        table = table[key]
    change(table)
    return "\n".join(f"{key} = {toml(value)}" for key, value in data.items())


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KEYS), st.sampled_from(["x{}", "{}s_", "{0}{0}"]))
def test_any_misspelt_key_is_named_with_its_path(tmp_path_factory, key, how):
    name, path = key
    wrong = how.format(path[-1])
    text = changed(name, path, lambda table: table.update({wrong: table.pop(path[-1])}))
    message = refusal(tmp_path_factory.mktemp("settings"), name, text)
    assert f"  {'.'.join(map(str, (*path[:-1], wrong)))}: unknown key" in message


@pytest.mark.parametrize(("name", "path"), KEYS, ids=[".".join(map(str, path)) for _, path in KEYS])
def test_a_deleted_key_is_named_with_its_path_unless_it_has_a_default(tmp_path, name, path):
    text = changed(name, path, lambda table: table.pop(path[-1]))
    if path in OPTIONAL:
        load(tmp_path, name, text)
    else:
        expected = NEEDED_TOGETHER.get(path, f"  {'.'.join(map(str, path))}: missing, and has no default")
        assert expected in refusal(tmp_path, name, text)


# ------------------------------------------------------------------------- found wrong: to be mended


def test_a_deleted_rule_of_the_method_is_named(tmp_path):
    """Without its tier weight an origin silently weighs 0, without its grade the calculation stops."""
    accepted = []
    for path in (path for path in places(DOCUMENTS["method"]) if path[:-1] in TABLES):
        try:
            load(tmp_path, "method", changed("method", path, lambda table, key=path[-1]: table.pop(key)))
            accepted.append(".".join(path))
        except ConfigError as error:
            assert ".".join(path) in str(error)
    assert not accepted, f"left out without a word: {accepted}"


def test_a_misspelt_tier_is_named(tmp_path):
    message = refusal(tmp_path, "method", replaced(METHOD, ("assessment = 0.7", "asessment = 0.7")))
    assert "determination.tier_weights.asessment" in message


def test_a_weekday_by_number_is_refused_because_programs_count_them_differently(tmp_path):
    """In crontab 1-5 is Monday to Friday; APScheduler counts from Monday = 0, so it is Tuesday to Saturday."""
    text = replaced(OPERATION, ("0 14 * * mon-fri", "0 14 * * 1-5"))
    assert "publish.schedule" in refusal(tmp_path, "operation", text)


def test_a_folder_of_time_zones_is_no_time_zone(tmp_path):
    text = replaced(OPERATION, ('"Europe/Berlin"', '"Europe"'))
    assert "publish.time_zone" in refusal(tmp_path, "operation", text)
