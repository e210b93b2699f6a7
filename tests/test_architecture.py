"""The project keeps its own rules: who may import what, who may look at the clock, what is written where."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from pricing import config, decisions, demonstration, figures, sources
from pricing.web.app import create_app

ROOT = Path(__file__).resolve().parents[1]

# Data flow to the right; a module knows only what stands before it. Helpers not named here are seen through.
ORDER = [
    "errors", "settings", "subscribers", "config", "quality", "judgement", "causes", "decisions", "declarations",
    "units", "slips", "anomalies", "corroboration", "watching", "checks", "habits", "archive", "fetch", "store",
    "cells", "sources", "customs", "reference", "fallback", "spreads", "trade", "panels", "formulas", "multilateral",
    "chaining", "aggregation", "imputation", "replica", "imports", "index", "twins", "figures", "sensitivity",
    "forecasts", "watchlist", "shocks", "parcel", "alerts", "notice", "keys", "releases", "published", "documents",
    "mail", "webhook", "bounces", "outbox", "workspace", "duty", "collecting", "detection", "pipeline", "review",
    "clauses", "report", "schedule", "commands",
]  # fmt: skip
OUTSIDE = {
    "requests", "urllib3", "urllib.request", "http", "http.client", "http.server", "socket", "ssl", "smtplib",
    "sqlite3", "sqlite_utils", "flask", "werkzeug", "granian", "email", "structlog", "subprocess",
}  # fmt: skip
PURE = (
    "chemistry", "units", "quality", "judgement", "decisions", "declarations", "slips", "checks", "habits",
    "reference", "fallback", "spreads", "trade", "panels", "formulas", "multilateral", "chaining", "aggregation",
    "imputation", "replica", "imports", "index", "twins", "anomalies", "corroboration", "watching", "watchlist",
    "shocks", "notice", "causes", "figures", "sensitivity", "forecasts", "settings", "subscribers", "parcel", "alerts",
)  # fmt: skip


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the product by its dotted name, read but never imported."""
    files = [ROOT / "service.py", *(ROOT / "pricing").rglob("*.py"), *(ROOT / "forecasting").rglob("*.py")]
    named = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}
    return {name: ast.parse(f.read_text("utf-8"), str(f)) for name, f in named.items()}


@cache
def imported(name: str) -> frozenset[str]:
    """What a module imports anywhere in it, function bodies and type checking included."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    packages = {part.rpartition(".")[0] for part in found if part in modules()}
    return frozenset(found | {package for package in packages if package in modules()})


def reached(name: str) -> set[str]:
    """A module's imports, and those of the project's modules among them, and so on."""
    seen, todo = set(), [name]
    while todo:
        for part in imported(todo.pop()):
            if part not in seen:
                seen.add(part)
                todo += [part] if part in modules() else []
    return seen


def tops(names: set[str]) -> set[str]:
    return names | {name.partition(".")[0] for name in names}


def is_web(name: str) -> bool:
    return name == "pricing.web" or name.startswith("pricing.web.")


def importers(*libraries: str) -> set[str]:
    return {name for name in modules() if tops(set(imported(name))) & set(libraries)}


def calls(name: str) -> set[str]:
    """Dotted names that a module reads, such as ``os.environ`` or ``dt.datetime.now``."""
    return {ast.unparse(node) for node in ast.walk(modules()[name]) if isinstance(node, ast.Attribute)}


def test_the_walk_sees_through_helpers():
    assert "sqlite3" in reached("pricing.pipeline") and "sqlite3" not in imported("pricing.pipeline")
    assert "pricing.sources.worldbank" in reached("pricing.sources.imf")


@pytest.mark.parametrize("position", range(1, len(ORDER)), ids=ORDER[1:])
def test_imports_point_the_same_way_as_the_data(position):
    name = f"pricing.{ORDER[position]}"
    if name not in modules():
        pytest.skip("not built yet")
    later = {f"pricing.{other}" for other in ORDER[position + 1 :]} | {"pricing.web", "service"}
    found = {part for part in reached(name) if any(part == other or part.startswith(other + ".") for other in later)}
    assert not found, f"{name} knows of later stages: {sorted(found)}"


@pytest.mark.parametrize("name", PURE)
def test_computation_reaches_no_network_database_web_or_mail_library(name):
    if f"pricing.{name}" not in modules():
        pytest.skip("not built yet")
    assert not tops(reached(f"pricing.{name}")) & OUTSIDE


def test_forecasting_knows_nothing_of_minerals_storage_or_the_web():
    allowed = {"numpy", "pandas", "scipy", "statsmodels", "joblib", "dask", "distributed", "forecasting"}
    for name in (n for n in modules() if n.startswith("forecasting")):
        third_party = tops(reached(name)) - OUTSIDE
        assert not tops(reached(name)) & OUTSIDE
        assert not any(part.startswith("pricing") for part in third_party)
        known = {part.partition(".")[0] for part in third_party}
        assert known <= allowed | set(__import__("sys").stdlib_module_names), f"{name}: {sorted(known - allowed)}"


def test_parsers_are_pure():
    for name in (n for n in modules() if n.startswith("pricing.sources.")):
        # worldbank reads damaged workbooks in a process of its own; pipes only
        assert not tops(reached(name)) & (OUTSIDE - {"subprocess"}), name
        assert not any(part in reached(name) for part in ("pricing.fetch", "pricing.store", "pricing.archive")), name
    assert "open" not in {
        node.func.id
        for name in modules()
        if name.startswith("pricing.sources.")
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def test_one_http_client():
    assert importers("requests", "urllib3") == {"pricing.fetch", "pricing.connections", "pricing.download"}
    # the scheduler's parent asks its own web process on loopback whether it is ready
    assert importers("http.client", "socket") == {"pricing.connections", "service"}
    assert not importers("urllib.request", "http.server")


def test_one_module_sends_mail():
    assert importers("smtplib", "dkim") == {"pricing.mail"}
    assert not importers("imaplib", "poplib")


def test_only_the_two_databases_know_sqlite():
    assert importers("sqlite_utils") == {"pricing.store"}
    assert importers("sqlite3") <= {"pricing.store", "pricing.published", "pricing.web.api"}
    of_web = {use for name in modules() if is_web(name) for use in calls(name)}
    assert {use for use in of_web if use.startswith("sqlite3.")} <= {"sqlite3.Error", "sqlite3.Connection"}


def test_no_other_hand_changes_a_figure():
    """Observations and decisions are only ever added, and a decision only by the review; triggers refuse the rest."""
    statements = {
        (name, " ".join(node.value.split()))
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    edits = re.compile(r"\b(UPDATE|DELETE FROM|REPLACE INTO|DROP TABLE|DROP TRIGGER) +(observation|decision)\b", re.I)
    assert not {(name, text) for name, text in statements if edits.search(text)}
    added = re.compile(r"\bINSERT[ A-Z]* INTO (observation|decision)\b")
    assert {name for name, text in statements if added.search(text)} == {"pricing.store"}
    users = {name for name in modules() for use in calls(name) if use.endswith((".add_decision", ".add_observation"))}
    assert users == {"pricing.review"}
    assert {name for name in modules() if "pricing.review" in imported(name)} == {"pricing.commands.review"}


def test_every_reason_code_is_published_with_its_text():
    text = (ROOT / "docs" / "method.md").read_text("utf-8")
    for code, (says, kinds) in decisions.REASONS.items():
        assert f"| `{code}` | {', '.join(sorted(kinds))} | {says} |" in text, code


def test_every_check_of_a_document_is_documented_for_readers_and_for_the_operator():
    named = set()
    for name in ("pricing.quality", "pricing.checks", "pricing.habits"):
        for node in ast.walk(modules()[name]):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Finding", "_Explained"):
                named |= {one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)}
    assert len(named) > 10
    for page in ("method.md", "operating.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert [check for check in sorted(named) if f"`{check}`" not in text] == [], page


def test_the_web_process_loads_nothing_heavy_and_reaches_no_working_store():
    heavy = {"pandas", "numpy", "scipy", "statsmodels", "sqlite_utils", "pydantic", "apscheduler", "requests"}
    inside = {"pricing.errors", "pricing.published"}
    for name in (n for n in modules() if is_web(n)):
        assert not tops(reached(name)) & heavy, name
        own = {part for part in reached(name) if part in modules() and not is_web(part)}
        assert own <= inside | {"pricing"}, f"{name}: {sorted(own - inside)}"


def test_nobody_but_the_web_and_the_command_line_knows_the_web():
    assert {name for name in importers("flask", "granian", "werkzeug") if not is_web(name)} == set()
    users = {name for name in modules() if any(is_web(p) for p in imported(name))}
    assert {name for name in users if not is_web(name)} == {"service"}


def test_the_environment_is_read_at_the_edges_only():
    readers = {name for name in modules() if calls(name) & {"os.environ", "os.getenv", "os.environb"}}
    assert readers == {"service", "pricing.web.app", "pricing.web.server"}


def test_the_wall_clock_is_read_at_the_edges_only():
    clocks = re.compile(r"(^|\.)(datetime|date)\.(now|utcnow|today)$|^time\.(time|time_ns|localtime|gmtime)$")
    readers = {name for name in modules() if any(clocks.search(use) for use in calls(name))}
    assert readers == {"service", "pricing.web.app"}
    assert not importers("random")


# ------------------------------------------------------------------------------------- settings


@cache
def settings() -> tuple[config.Operation, config.Methodology]:
    return config.load_operation(ROOT / "config.toml"), config.load_methodology(ROOT / "methodology")


def all_sources() -> dict[str, config.Source]:
    return {**settings()[0].sources, **demonstration.operation(Path("data")).sources}


def test_the_settings_as_shipped_fit_and_convert():
    for operation, methodology in (
        settings(),
        (demonstration.operation(Path("data")), config.load_methodology(ROOT / "methodology" / "demo")),
    ):
        assert operation.sources and methodology.baskets
        config.check_references(operation, methodology)
        figures.check_units(operation, methodology)
        known = {*operation.series(), *(t.id for t in methodology.tonnages)}
        lost = [c.production for b in methodology.baskets.values() for c in b.constituents if c.production not in known]
        assert not lost, f"no series or tonnage of these names, so nothing weighs their markets: {lost}"


def test_every_anchor_is_an_origin_that_somebody_quotes():
    operation, methodology = settings()
    quoted: dict[str, set[str]] = {}
    for s in operation.series().values():
        quoted.setdefault(f"{s.mineral}/{s.stage}/{s.zone}", set()).add(s.origin)
    for market in methodology.markets:
        if market.anchor and market.key in quoted:
            assert market.anchor in quoted[market.key], market.key


@pytest.mark.parametrize("name", sorted(all_sources()))
def test_every_source_has_a_parser_and_declares_its_terms(name):
    source = all_sources()[name]
    module = sources.load(name, source)
    asked_of = ("declarations",) if source.customs else ("parse",)
    asked_of += ("requests", "understood", "halves") if source.customs and source.url else ()
    assert all(callable(getattr(module, function)) for function in asked_of)
    for field in ("title", "publisher", "licence", "attribution"):
        assert getattr(source, field).strip(), f"sources.{name}.{field} says nothing"
    assert re.match(r"https?://|Simulated", source.terms), f"sources.{name}.terms is no address: {source.terms!r}"
    if "proprietary" in source.licence.lower() or "all rights reserved" in source.licence.lower():
        assert source.letter or not source.rights.publish_derived, f"sources.{name}: no letter, no right"


def test_every_source_of_the_file_states_its_rights_itself():
    raw = tomllib.loads((ROOT / "config.toml").read_text("utf-8"))
    assert all({"rights", "licence", "terms", "terms_read"} <= set(source) for source in raw["sources"].values())


# ------------------------------------------------------------------------------- what is written


def project_files() -> list[Path]:
    skipped = {".git", ".venv", "__pycache__", "data", "build", "node_modules"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(
            part in skipped or part.endswith((".egg-info", "_cache")) or part == ".hypothesis"
            for part in path.relative_to(ROOT).parts
        )
    ]


def test_no_file_names_a_package_index_or_a_path_of_one_machine():
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("pypi", "python", "org"))]
    machine = re.compile(r"(?<![\w.}\]/-])/(?:home|root|Users)/\w")
    here = [str(ROOT)] if len(ROOT.parts) > 2 else []
    mistakes = []
    for path in project_files():
        text = path.read_bytes().decode("utf-8", "replace")
        mistakes += [f"{path.relative_to(ROOT)}: {word}" for word in (*hosts, *here) if word in text]
        mistakes += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in machine.finditer(text)]
    assert not mistakes


def test_every_route_is_documented_and_every_documented_address_is_a_route(tmp_path):
    rules = create_app(tmp_path, tmp_path / "status.json").url_map
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `/")]
    documented = [address for row in rows for address in re.findall(r"`(/[^`]*)`", row.split("|")[1])]
    assert documented
    shapes = {re.sub(r"\{[^}]*\}", "{}", address) for address in documented}
    routes = {re.sub(r"<[^>]*>", "{}", rule.rule) for rule in rules.iter_rules()}
    assert "`/v1/NAME`" in text
    assert routes - {"/v1/{}"} <= shapes
    adapter = rules.bind("localhost")
    for address in documented:
        assert adapter.match(re.sub(r"\{[^}]*\}", "1", address)), address
