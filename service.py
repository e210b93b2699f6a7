"""Command line and wiring of Lodemark. ``lodemark --help`` lists what it can do.

Exit code 0: done. 1: the thing asked for failed. 2: wrong usage or wrong settings.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pricing import __version__
from pricing.commands.alerts import alert_commands
from pricing.commands.backtest import backtest_command
from pricing.commands.detect import detect_command
from pricing.commands.review import review_commands
from pricing.errors import ConfigError, PricingError

if TYPE_CHECKING:
    from pricing.config import Methodologies, Methodology, Operation, Replica
    from pricing.pipeline import Outcome, Workspace

HERE = Path(__file__).resolve().parent


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class _Commands(click.Group):
    """Turns our errors into a message and an exit code, never into a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"lodemark: {error}", err=True)
            ctx.exit(2)
        except PricingError as error:
            click.echo(f"lodemark: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), default=Path("config.toml"), show_default=True
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Data folder; else the one in config.toml."
)
@click.option("--quiet", is_flag=True, help="Warnings only in the log.")
@click.version_option(__version__, prog_name="lodemark")
@click.pass_context
def main(ctx: click.Context, config_file: Path, data: Path | None, quiet: bool) -> None:
    """Prices and market transparency for critical minerals."""
    ctx.obj = {"config": config_file, "data": data}
    _log(quiet)


def _log(quiet: bool) -> None:
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # its debug lines show whole addresses, with their keys


# ------------------------------------------------------------------------------------- settings


def _settings(ctx: click.Context) -> tuple[Path, Operation, Methodologies]:
    """Read and check the settings and all documents of the method; the data folder is the command line's or theirs."""
    from pricing import config, figures

    file: Path = ctx.obj["config"]
    operation = config.load_operation(file)
    base = file.resolve().parent
    methods = config.load_methodologies(base / operation.methodology)
    today = _now().date()
    for method in (methods.in_force(today), *methods.pending(today)):
        config.check_references(operation, method)
        figures.check_units(operation, method)
    return ctx.obj["data"] or base / operation.data, operation, methods


def _method(methods: Methodologies) -> Methodology:
    """Return the document in force today."""
    return methods.in_force(_now().date())


@contextmanager
def _workspace(ctx: click.Context, *, looking: bool = False) -> Iterator[Workspace]:
    from pricing import pipeline

    data, operation, methods = _settings(ctx)
    if looking and not (data / "store.db").exists():
        raise PricingError(f"{data}: nothing was collected here yet ('lodemark collect', or --data for another folder)")
    with pipeline.opened(
        data, operation, methods, _now, simulated=None if looking else False, environ=os.environ
    ) as ws:
        yield ws


def _client(ws: Workspace) -> Any:
    from pricing.fetch import Client

    return Client(ws.operation.fetch, ws.archive, ws.now)


def _track(items: list[Any], what: str) -> Iterable[Any]:
    """Show a progress bar, on a terminal only."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, description=what, console=console, transient=True, disable=not console.is_terminal)


def _tell(outcomes: list[Outcome], as_json: bool) -> None:
    """Print how each source or file ended; exit with 1 when one needs looking at."""
    rows = [
        {
            "source": o.source,
            **({"file": o.file} if o.file else {}),
            "outcome": o.outcome,
            "vintage": o.vintage.isoformat() if o.vintage else None,
            "new": o.changes.new,
            "revised": o.changes.revised,
            "withdrawn": o.changes.withdrawn,
            "message": o.message,
        }
        for o in outcomes
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _table([row for row in rows if row["outcome"] != "skipped"])
        if skipped := sum(o.outcome == "skipped" for o in outcomes):
            click.echo(f"{skipped} files passed over: no series is read from files of their names")
    if not all(o.ok for o in outcomes):
        sys.exit(1)


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    console = Console(soft_wrap=False) if sys.stdout.isatty() else Console(width=200)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="right" if isinstance(rows[0][name], int | float) else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if v is None else str(v) for v in row.values()))
    console.print(table)


as_json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable answer.")


# -------------------------------------------------------------------------------------- collect


@main.command()
@click.argument("source", required=False)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@as_json_option
@click.pass_context
def collect(ctx: click.Context, source: str | None, files: tuple[Path, ...], as_json: bool) -> None:
    """Collect SOURCE (or all that have an address), or load FILES of it as learnt now."""
    from pricing import pipeline

    with _workspace(ctx) as ws:
        if source is not None:
            _known(ws.operation, source)
        if files and source:
            out = pipeline.load_files(ws, source, _expand(files), replay=False, track=_track)
        else:
            if source and not ws.operation.sources[source].url:
                raise click.UsageError(f"{source} has no address: lodemark collect {source} FILE…")
            names = [source] if source else [n for n, s in ws.operation.sources.items() if s.url]
            out = pipeline.collect(ws, _client(ws), names, _track)
        pipeline.write_status(ws)
    _tell(out, as_json)


@main.command()
@click.argument("source")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--published", type=click.DateTime(["%Y-%m-%d"]), help="Stamp of files that bear none.")
@as_json_option
@click.pass_context
def backfill(
    ctx: click.Context, source: str, files: tuple[Path, ...], published: dt.datetime | None, as_json: bool
) -> None:
    """Load kept FILES (or folders) of SOURCE as if learnt at the end of the day stamped on them."""
    from pricing import pipeline

    with _workspace(ctx) as ws:
        _known(ws.operation, source)
        stamp = published.date() if published else None
        out = pipeline.load_files(ws, source, _expand(files), replay=True, stamp=stamp, track=_track)
        pipeline.write_status(ws)
    _tell(out, as_json)


def _expand(files: Iterable[Path]) -> list[Path]:
    """Files as named; a folder stands for the files in it."""
    out: list[Path] = []
    for path in files:
        out += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return out


def _known(operation: Operation, source: str) -> None:
    if source not in operation.sources:
        raise click.UsageError(f"no source {source!r} in the settings; there are {', '.join(operation.sources)}")


# -------------------------------------------------------------------------------------- release


@main.command()
@click.option(
    "--at", help="Instant at which the release is deemed made (replayed data only): 2024-07-01 or 2024-07-01T14:00Z."
)
@click.option("--internal", is_flag=True, help="The auditors' release, which may rest on closed sources.")
@as_json_option
@click.pass_context
def release(ctx: click.Context, at: str | None, internal: bool, as_json: bool) -> None:
    """Determine prices, compile indices, and make the next signed release."""
    from pricing import pipeline

    with _workspace(ctx) as ws:
        when = _now()
        if at is not None:
            if ws.store.kind == "live":
                raise click.UsageError(
                    "--at is for replayed data: in a live database the clock says when a release is made"
                )
            when = _instant(at)
            if when > _now():
                raise click.UsageError(f"--at {at} has not come yet")
        made = pipeline.release(ws, "internal" if internal else "public", when, os.environ)
        pipeline.write_status(ws)
    facts = {
        "audience": made.manifest["audience"],
        "number": made.number,
        "vintage": made.manifest["vintage"],
        "files": len(made.manifest["files"]),
        "manifest_sha256": made.manifest_sha256,
        "folder": str(made.folder),
    }
    click.echo(json.dumps(facts, indent=2)) if as_json else _table([facts])


def _instant(text: str) -> dt.datetime:
    """An ISO instant with its offset, or a date: the end of that day, UTC."""
    try:
        if len(text) == 10:
            return dt.datetime.combine(dt.date.fromisoformat(text), dt.time.max, tzinfo=dt.UTC)
        when = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"{text!r} is neither a date such as 2024-07-01 nor an instant such as 2024-07-01T14:00Z"
        ) from None
    if when.tzinfo is None:
        raise click.UsageError(f"{text!r} lacks its offset from UTC: write {text}Z")
    return when


@main.command()
@click.argument("target")
@click.option(
    "--keys", "key_set", type=click.Path(path_type=Path, exists=True), help="Key set; else the one published beside."
)
@click.option("--no-chain", is_flag=True, help="Do not follow the chain back to the first release.")
@as_json_option
@click.pass_context
def verify(ctx: click.Context, target: str, key_set: Path | None, no_chain: bool, as_json: bool) -> None:
    """Check signature, hashes and chain of a release: its folder, its number, or its address."""
    from pricing import releases

    with tempfile.TemporaryDirectory() as scratch:
        if target.startswith(("http://", "https://")):
            from pricing.download import download

            folder, found = download(target, Path(scratch), _track, chain=not no_chain)
        else:
            folder = _release_folder(ctx, target)
            found = _key_set_beside(folder)
        report = releases.verify(folder, key_set or found, chain=not no_chain)
    if as_json:
        click.echo(json.dumps(report.__dict__, indent=2))
    elif report.ok:
        chain = f"chain of {len(report.chain)} to release {report.chain[-1]}" if report.chain else "chain not followed"
        click.echo(f"release {report.number}: good. {report.checked_files} files, key {report.key_id}, {chain}.")
    else:
        click.echo(f"release {report.number}: NOT what was signed\n  " + "\n  ".join(report.problems), err=True)
    sys.exit(0 if report.ok else 1)


def _release_folder(ctx: click.Context, target: str) -> Path:
    if not target.isdigit() and target != "latest":
        return Path(target).resolve()
    from pricing import releases

    root = (ctx.obj["data"] or _settings(ctx)[0]) / "public"
    made = releases.latest(root) if target == "latest" else releases.load(root, int(target))
    if made is None:
        raise PricingError(f"{root}: no release yet")
    return made.folder


def _key_set_beside(folder: Path) -> Path:
    """The key set of the tree that a release folder stands in; both audiences share the public one."""
    for tree in (folder.parent.parent, folder.parent.parent.parent / "public"):
        if (tree / "jwks.json").exists():
            return tree / "jwks.json"
    raise click.UsageError(f"no jwks.json beside {folder.parent}: name the key set with --keys")


# -------------------------------------------------------------------------------------- looking


@main.command()
@as_json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Tell the state of sources and releases."""
    from pricing import pipeline

    with _workspace(ctx, looking=True) as ws:
        state = pipeline.status(ws)
    if as_json:
        click.echo(json.dumps(state, indent=2))
        return
    click.echo(f"{state['kind']} database, {state['at']}")
    shown = ("observations", "revised", "withdrawn", "last_period", "age_days", "stale", "outcome", "message")
    _table([{"source": n, **{k: s[k] for k in shown}} for n, s in state["sources"].items()])
    for audience, made in state["releases"].items():
        click.echo(f"{audience}: release {made['number']} of {made['released_at']}")
    if not state["releases"]:
        click.echo("no release yet: 'lodemark collect', then 'lodemark release'")


@main.command("index")
@click.argument("name")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--source", required=True, help="Whose index it is.")
@as_json_option
@click.pass_context
def index_command(ctx: click.Context, name: str, files: tuple[Path, ...], source: str, as_json: bool) -> None:
    """Rebuild the index NAME of another publisher from their documents, and compare it with theirs.

    Takes FILES, or else every document of SOURCE that was collected.
    """
    from pricing import config
    from pricing import sources as readers

    _, operation, _ = _settings(ctx)
    _known(operation, source)
    folder = ctx.obj["config"].resolve().parent / operation.methodology / "replicas"
    baskets = config.load_replicas(folder, source).baskets
    if name not in baskets:
        raise click.UsageError(f"{source} has no index {name!r} that is reproduced; there are {', '.join(baskets)}")
    reader = readers.load(source, operation.sources[source])
    rows = [
        {"document": document, **_reproduced(reader, raw, baskets[name])}
        for document, raw in _documents(ctx, source, files)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _table([{**{k: _short(v) for k, v in row.items()}, "document": Path(row["document"]).name} for row in rows])
    sys.exit(0 if all(row["agrees"] for row in rows) else 1)


def _short(value: Any) -> Any:
    """A number as a table has room for; a small difference stays visible."""
    return value if not isinstance(value, float) else f"{value:.4f}" if value >= 1e-3 else f"{value:.1e}"


def _documents(ctx: click.Context, source: str, files: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    """Documents of a source, each once: the files named, or those that were collected, oldest first."""
    if files:
        yield from ((str(path), path.read_bytes()) for path in _expand(files))
        return
    with _workspace(ctx, looking=True) as ws:
        kept = dict.fromkeys(d["sha256"] for d in ws.store.documents() if d["source"] == source)
        if not kept:
            raise PricingError(f"{ws.data}: no document of {source} was collected yet; name files, or collect it")
        yield from ((sha256[:12], ws.archive.get(sha256)) for sha256 in kept)


def _reproduced(reader: Any, raw: bytes, basket: Replica) -> dict[str, Any]:
    """How well one document's published index is reproduced; one that cannot be read does not stop the others."""
    from pricing import replica

    try:
        prices = reader.monthly_prices(raw, [(m.column, *m.aliases) for m in basket.members])
        published = reader.published_indices(raw, [basket.index])
        found = replica.compared(prices.values, published.values[basket.index], basket)
    except PricingError as error:
        return {**dict.fromkeys(_REPRODUCED), "agrees": False, "message": str(error)}
    last = found.frame.iloc[-1]
    facts = (
        str(prices.published) if prices.published else None,
        found.months,
        found.frame.index[0],
        found.frame.index[-1],
        *(None if last.isna()[one] else float(last[one]) for one in ("published", "rebuilt")),
        *(found.largest(difference) if found.months else None for difference in ("relative", "absolute")),
    )
    lacking = f"one of the two is missing in {', '.join(found.unmatched)}" if found.unmatched else ""
    agrees = found.agrees(basket.tolerance)
    return {**dict(zip(_REPRODUCED, facts, strict=True)), "agrees": agrees, "message": lacking}


_REPRODUCED = ("vintage", "months", "first", "last", "published", "rebuilt", "largest_relative", "largest_absolute")


@main.group()
def sources() -> None:
    """Look at sources, reach them, try a file before it goes live."""


@sources.command("list")
@as_json_option
@click.pass_context
def sources_list(ctx: click.Context, as_json: bool) -> None:
    """List the sources with their rights and series."""
    _, operation, _ = _settings(ctx)
    rows = [
        {
            "source": name,
            "publisher": s.publisher,
            "licence": s.licence,
            "values": "public"
            if s.rights.publish_value
            else "derived only"
            if s.rights.publish_derived
            else "internal",
            "series": len(s.series) or (f"cells by {s.customs.system}" if s.customs else 0),
            "quarantined": sum(bool(x.quarantined) for x in s.series),
            "schedule": f"{s.schedule} {s.time_zone}" if s.schedule else "files only",
            "untested": s.untested,
        }
        for name, s in operation.sources.items()
    ]
    click.echo(json.dumps(rows, indent=2)) if as_json else _table(rows)


@sources.command("check")
@click.argument("names", nargs=-1)
@as_json_option
@click.pass_context
def sources_check(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Reach sources and read what they answer, without storing a figure."""
    from pricing import customs
    from pricing import sources as readers
    from pricing.archive import Archive
    from pricing.fetch import Client

    _, operation, methods = _settings(ctx)
    for name in names:
        _known(operation, name)
        if not operation.sources[name].url:
            raise click.UsageError(f"{name} has no address: try a file with 'lodemark sources try {name} FILE'")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        client = Client(operation.fetch, Archive(Path(scratch)), _now)
        for name in names or [n for n, s in operation.sources.items() if s.url]:
            source = operation.sources[name]
            try:
                if source.customs:
                    codes = [c for c in _method(methods).codes if c.system == source.customs.system]
                    found = customs.first_answer(name, source, codes, client, os.environ, _now())
                    rows.append({"source": name, "ok": True, **_customs_summary(found)})
                    continue
                answer = client.get(source.url, max_bytes=source.max_bytes)
                parsed = readers.parse(name, source, answer.raw or b"")
                rows.append({"source": name, "ok": True, **_summary(parsed)})
            except PricingError as error:
                rows.append({"source": name, "ok": False, "message": str(error)})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            _table([row])
    sys.exit(0 if all(row["ok"] for row in rows) else 1)


@sources.command("try")
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@as_json_option
@click.pass_context
def sources_try(ctx: click.Context, source: str, file: Path, as_json: bool) -> None:
    """Read FILE as SOURCE would, and show what it says, without storing anything."""
    from pricing import customs
    from pricing import sources as readers

    _, operation, methods = _settings(ctx)
    _known(operation, source)
    found = operation.sources[source]
    if found.customs:
        codes = [c for c in _method(methods).codes if c.system == found.customs.system]
        _tell_declared(customs.read(source, found, codes, file.read_bytes()), found.customs.currency, as_json)
        return
    series = {s.id: s for s in found.series if s.reads(file.name)}
    if not series:
        raise click.UsageError(f"no series of {source} is read from a file named {file.name}; see 'file' in its series")
    parsed = readers.parse(source, found, file.read_bytes(), series)
    summary = _summary(parsed)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    click.echo(
        f"published {summary['published']}, {summary['observations']} observations of {summary['series']} series"
    )
    last = parsed.observations.sort_values("period").groupby("series").tail(1)
    rows = [dict(zip(last.columns, row, strict=True)) for row in last.itertuples(index=False)]
    _table([{**row, "unit": series[row["series"]].unit} for row in rows])
    if summary["absent"]:
        click.echo(f"absent: {', '.join(summary['absent'])}")
    for finding in parsed.findings:
        click.echo(
            f"{finding.severity}: {finding.check} {finding.series or ''} {finding.period or ''} {finding.message}"
        )


def _customs_summary(declared: Any) -> dict[str, Any]:
    cells = declared.cells
    return {
        "published": str(declared.published) if declared.published else None,
        "cells": len(cells),
        "codes": int(cells["code"].nunique()),
        "partners": int(cells["partner"].nunique()),
        "first": cells["period"].min() if len(cells) else None,
        "last": cells["period"].max() if len(cells) else None,
        "left_out": dict(sorted(declared.left_out.items())),
        "findings": len(declared.findings),
    }


def _tell_declared(declared: Any, currency: str, as_json: bool) -> None:
    """Show what a customs document says: counts, sums by code, and what is doubtful."""
    summary = _customs_summary(declared)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    for name, value in summary.items():
        click.echo(f"{name}: {value}")
    sums = declared.cells.groupby("code")[["value", "kg"]].sum()
    _table([{"code": code, currency: row["value"], "kg": row["kg"]} for code, row in sums.iterrows()])
    for finding in declared.findings:
        click.echo(f"{finding.severity}: {finding.check} {finding.message}")


def _summary(parsed: Any) -> dict[str, Any]:
    return {
        "published": str(parsed.published) if parsed.published else None,
        "observations": len(parsed.observations),
        "series": int(parsed.observations["series"].nunique()),
        "absent": list(parsed.absent),
        "findings": len(parsed.findings),
    }


# --------------------------------------------------------------------------------------- report


@main.group("report")
def report_group() -> None:
    """Reports on the service itself."""


@report_group.command("quality")
@click.option("--from", "first", required=True, metavar="MONTH", help="First month, such as 2026-01.")
@click.option("--to", "last", required=True, metavar="MONTH", help="Last month, such as 2026-03.")
@click.option("--internal", is_flag=True, help="By the auditors' releases instead of the public ones.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead.")
@as_json_option
@click.pass_context
def report_quality(
    ctx: click.Context, first: str, last: str, internal: bool, output: Path | None, as_json: bool
) -> None:
    """Show the evidence of quality of a span of months, clause by clause: self-assessment, not assured."""
    from pricing import report

    try:
        span = report.Span(first, last)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with _workspace(ctx, looking=True) as ws:
        made = report.assemble(report.gather(ws, span, "internal" if internal else "public"))
    text = json.dumps(made, indent=2, ensure_ascii=False) + "\n" if as_json else report.markdown(made)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")


# --------------------------------------------------------------------------------------- review

main.add_command(review_commands(_workspace, _table))
main.add_command(detect_command(_workspace, _table))
main.add_command(backtest_command(_workspace, _table, lambda: _track))
main.add_command(alert_commands(_workspace, _table))


# ------------------------------------------------------------------------------------------ keys


# One key name in 64 begins with a hyphen: it is a name, not an option.
_KEY_NAMES = {"ignore_unknown_options": True}


@main.group("keys")
def keys_group() -> None:
    """Make, list and retire the keys that sign releases."""


@keys_group.command("new")
@click.pass_context
def keys_new(ctx: click.Context) -> None:
    """Make a key: private half under DATA/keys, public half in the key set, signed by the key in use until now."""
    from pricing import keys
    from pricing.errors import ReleaseError

    data, _, _ = _settings(ctx)
    data.mkdir(parents=True, exist_ok=True)
    now, by = _now(), None
    if keys.list_keys(data):
        try:
            by = keys.signing_key(data, os.environ, now)
        except ReleaseError as error:
            click.echo(f"no older key signs the new one, so tell partners its name by another way: {error}", err=True)
    click.echo(keys.new_key(data, now, by).kid)


@keys_group.command("list")
@as_json_option
@click.pass_context
def keys_list(ctx: click.Context, as_json: bool) -> None:
    """List the keys of the key set."""
    from pricing import keys

    data, _, _ = _settings(ctx)
    found = keys.list_keys(data)
    rows = [{k: e.get(k) for k in ("kid", "nbf", "exp", "revoked")} for e in found]
    click.echo(json.dumps(rows, indent=2)) if as_json else _table(rows)


@keys_group.command("retire", context_settings=_KEY_NAMES)
@click.argument("kid")
@click.pass_context
def keys_retire(ctx: click.Context, kid: str) -> None:
    """Sign no more with a key; what it signed stays good."""
    from pricing import keys

    keys.retire(_settings(ctx)[0], kid, _now())


@keys_group.command("revoke", context_settings=_KEY_NAMES)
@click.argument("kid")
@click.option("--reason", required=True)
@click.pass_context
def keys_revoke(ctx: click.Context, kid: str, reason: str) -> None:
    """Withdraw trust from a key: nothing it ever signed verifies any more."""
    from pricing import keys

    keys.revoke(_settings(ctx)[0], kid, _now(), reason)


@keys_group.command("export")
@click.pass_context
def keys_export(ctx: click.Context) -> None:
    """Print the public key set, for partners."""
    path = _settings(ctx)[0] / "public" / "jwks.json"
    if not path.exists():
        raise PricingError(f"{path}: no keys yet; make one with 'lodemark keys new'")
    click.echo(path.read_text())


# ------------------------------------------------------------------------------------- methodology


@main.group("methodology", invoke_without_command=True)
@click.pass_context
def methodology_group(ctx: click.Context) -> None:
    """Show the method in force in words; list its documents; check a proposed change."""
    if ctx.invoked_subcommand is None:
        from pricing.documents import method_text

        click.echo(method_text.plain(method_text.blocks(_method(_settings(ctx)[2]))), nl=False)


@methodology_group.command("list")
@as_json_option
@click.pass_context
def methodology_list(ctx: click.Context, as_json: bool) -> None:
    """List the documents of the method: earlier ones, the one in force, those to come."""
    _, _, methods = _settings(ctx)
    today = _now().date()
    states = {m.id: "in force" for m in methods.documents}
    states |= {m.id: "earlier" for m in methods.earlier(today)} | {m.id: "pending" for m in methods.pending(today)}
    rows = [
        {
            "id": m.id,
            "state": states[m.id],
            "proposed": str(m.proposed),
            "comments_until": str(m.comments_until) if m.comments_until else None,
            "effective": str(m.effective),
            "notice_days": m.notice_days,
            "sha256": m.sha256,
        }
        for m in methods.documents
    ]
    click.echo(json.dumps(rows, indent=2)) if as_json else _table(rows)


@methodology_group.command("check")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@as_json_option
@click.pass_context
def methodology_check(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Check the change that FILE proposes: whether its notice runs, and what it changes, in words."""
    from pricing import config, figures
    from pricing.documents import method_text

    data, operation, known = _settings(ctx)
    folder = ctx.obj["config"].resolve().parent / operation.methodology
    methods = config.load_methodologies(folder, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    change = next(m for m in methods.documents if m.sha256 == digest)
    config.check_references(operation, change)
    figures.check_units(operation, change)
    in_force = _method(known)
    earliest, why = _earliest(data, methods, change)
    facts = {
        "id": change.id,
        "in_force": in_force.id,
        "effective": str(change.effective),
        "earliest": str(earliest),
        "refused": why,
        **method_text.differences(in_force, change),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(f"{change.id} is to take effect on {change.effective}; the earliest day is {earliest}")
        for word in ("before", "after"):
            for line in facts[word]:
                click.echo(f"{'-' if word == 'before' else '+'} {line}")
        if not facts["before"] and not facts["after"]:
            click.echo(f"no rule differs from {in_force.id}")
    if why:
        raise PricingError(f"{file}: {why}")


def _earliest(data: Path, methods: Methodologies, change: Methodology) -> tuple[dt.date, str]:
    """Return the first day on which a change may take effect here, and why its own day is refused, if it is."""
    from pricing import config, notice, pipeline

    today = _now().date()
    earliest = config.earliest_day(change.proposed, methods.in_force(change.proposed))
    before = pipeline.methods_told(data) or {}
    last = before.get("in_force")
    if last is None or change.id <= last["id"]:
        return earliest, ""
    told = notice.announced(before, change) or {"released_at": today.isoformat()}
    earliest = max(earliest, notice.earliest(told, change, last["notice_days"]))
    if change.effective >= earliest:
        return earliest, ""
    first = f"release {told['release']}" if "release" in told else "the next release, if it is made today,"
    return earliest, f"effective: {change.effective}, but {first} is the first to announce it; earliest: {earliest}"


# --------------------------------------------------------------------------------------- running


@main.command()
@click.option("--host")
@click.option("--port", type=int)
@click.option("--workers", type=int)
@click.pass_context
def serve(ctx: click.Context, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve the releases of the data folder; needs nothing else of the service."""
    from pricing.web.server import serve as serve_web

    if ctx.obj["data"] is not None and host and port:
        data, web = ctx.obj["data"], None
    else:
        data, operation, _ = _settings(ctx)
        web = operation.web
    serve_web(data, host or web.host, port or web.port, workers or (web.workers if web else 1))  # type: ignore[union-attr]


def _deliverer(operation: Operation) -> Callable[[Workspace, Callable[[], bool]], str] | None:
    """How the scheduler sends what the outbox holds; None where nobody is told of anything."""
    if not operation.subscribers:
        return None

    def deliver(ws: Workspace, stop: Callable[[], bool]) -> str:
        from pricing import outbox

        told = ws.operation
        return outbox.turn(ws.store, told.alerts, told.subscribers, ws.environ, ws.data, ws.now, stop)

    return deliver


@main.command()
@click.pass_context
def run(ctx: click.Context) -> None:
    """Run scheduler and web on this machine until told to stop."""
    from pricing.schedule import Scheduler, only_scheduler

    data, operation, methods = _settings(ctx)
    stop = _stopper()
    with only_scheduler(data):
        scheduler = Scheduler(data, operation, methods, _now, os.environ, _client, _deliverer(operation))
        with _web(data, operation.web.host, operation.web.port, operation.web.workers) as web:
            scheduler.start()
            click.echo(f"Lodemark: http://{operation.web.host}:{operation.web.port}/  (Ctrl-C ends it)")
            for job, due in sorted(scheduler.due().items()):
                click.echo(f"  next {job}: {due}")
            try:
                while not stop.wait(1):
                    if web.poll() is not None:
                        raise PricingError(f"the web process ended with code {web.returncode}; is the port taken?")
            finally:
                click.echo("stopping: running jobs end first")
                scheduler.stop()


@main.command()
@click.option("--port", type=int, default=8080, show_default=True)
@click.option("--days", type=int, default=44, show_default=True, help="Market days to play.")
@click.option("--pace", type=float, default=1.0, show_default=True, help="Seconds between market days.")
@click.option("--exit-after", is_flag=True, help="End after the last market day instead of serving on.")
@click.pass_context
def demo(ctx: click.Context, port: int, days: int, pace: float, exit_after: bool) -> None:
    """Play a simulated market: five years of history, then a live day every second or two."""
    from pricing import config, demonstration, pipeline

    _log(quiet=True)
    began = time.monotonic()
    methodology = config.load_methodology(HERE / "methodology" / "demo")
    stop = _stopper()
    with tempfile.TemporaryDirectory(prefix="lodemark-demo-") as scratch:
        data = Path(ctx.obj["data"] or scratch)
        if (data / "store.db").exists():
            raise PricingError(f"{data} holds something already: name a new folder with --data, or leave it out")
        operation = demonstration.operation(data)
        clock = demonstration.Clock(dt.datetime.combine(demonstration.FIRST_LIVE_DAY, demonstration.CLOSE))
        click.echo("SIMULATED PRICES: nothing here is a real market.")
        with pipeline.opened(data, operation, methodology, clock, simulated=True) as ws:
            demonstration.build_history(ws, _track)
            click.echo(f"history of five years built after {time.monotonic() - began:.1f} s; first release follows")
            first, *later = demonstration.market_days(demonstration.FIRST_LIVE_DAY, max(1, days))
            demonstration.collect_day(ws, clock, first)
            made = demonstration.release_day(ws, clock, first, os.environ)
            with _web(data, "127.0.0.1", port, 1) as web:
                _until_served(web, port)
                _invite(port, time.monotonic() - began)
                _show_release(first, made)
                if len(later) > 5:
                    _show_tests(demonstration.backtest_evening(ws, clock, _track))
                for day in later:
                    beat = time.monotonic()
                    _show_collected(day, demonstration.collect_day(ws, clock, day))
                    if stop.wait(max(0.0, pace / 2 - (time.monotonic() - beat))):
                        break
                    _show_release(day, demonstration.release_day(ws, clock, day, os.environ))
                    if stop.wait(max(0.0, pace - (time.monotonic() - beat))):
                        break
                if not stop.is_set() and not exit_after:
                    click.echo("The two months are over; serving on until Ctrl-C.")
                    while not stop.wait(1) and web.poll() is None:
                        pass
    click.echo("Demonstration ended; nothing of it is kept." if not ctx.obj["data"] else f"Kept in {data}.")


def _invite(port: int, seconds: float) -> None:
    base = f"http://127.0.0.1:{port}"
    click.echo(f"serving a signed index {seconds:.1f} s after start. Open:")
    for path, what in (
        ("/", "the start page"),
        ("/v1/indices/critical-minerals", "an index, with weights, contributions and coverage"),
        ("/v1/prices/gallium/metal/XCN", "a reference price outside China"),
        ("/v1/prices/gallium/metal/CN", "and the same metal in China"),
        ("/v1/indicators/gallium/metal", "what its imports were worth per tonne; not a price"),
        ("/v1/gaps", "China's prices beside those outside"),
        ("/v1/forecasts/gallium/metal/XCN", "what is expected, and how earlier forecasts did"),
        ("/v1/shocks", "what the market did that nobody expected, and whose figures look wrong"),
        ("/v1/releases", "the releases, a new one each market day"),
    ):
        click.echo(f"  {base + path:<58} {what}")


def _show_tests(rows: list[Any]) -> None:
    """One line: how the forecasts did on rolling origins."""
    adopted = sum(made["decision"]["published"] == "model" for _, _, made in rows)
    click.echo(f"forecasts of {len(rows)} series tested: {adopted} by a model that beat its benchmark, the rest by it")


def _show_collected(day: dt.date, outcomes: list[Outcome]) -> None:
    """One line: what the contributors and the customs offices sent."""
    parts = []
    for what, customs in (("quotations", False), ("customs cells", True)):
        came = [o for o in outcomes if o.outcome == "new" and ("customs" in o.source) == customs]
        if came:
            new, revised = (sum(getattr(o.changes, name) for o in came) for name in ("new", "revised"))
            names = ", ".join(o.source.removeprefix("demo-").removeprefix("customs-") for o in came)
            parts.append(f"{new} {what} from {names}" + (f", {revised} revised" if revised else ""))
    click.echo(f"{day}  " + "; ".join(parts))


def _show_release(day: dt.date, made: Any) -> None:
    """One line: what the release says of the indices, and the largest move of a price."""
    indices = json.loads((made.folder / "indices.json").read_bytes())["indices"]
    parts = []
    for index in indices[:3]:
        latest = (index["latest"] or {}).get("daily")
        if latest:
            moved = round(latest["change"]["before"] or 0, 2) + 0.0  # never "-0.00"
            parts.append(f"{index['id']} {latest['value']:.2f} ({moved:+.2f} %)")
    prices = json.loads((made.folder / "prices.json").read_bytes())["prices"]
    moves = [(p["latest"]["daily"]["change"]["before"], p["id"]) for p in prices if _moved_on(p, day)]
    if moves:
        change, market = max(moves, key=lambda move: abs(move[0]))
        parts.append(f"largest move {market} {change:+.1f} %")
    click.echo(f"{day}  release {made.number}: {'  '.join(parts)}")


def _moved_on(price: dict[str, Any], day: dt.date) -> bool:
    latest = price["latest"].get("daily")
    return latest is not None and latest["period"] == str(day) and latest["change"]["before"] is not None


@contextmanager
def _web(data: Path, host: str, port: int, workers: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the web process beside; it cannot write, fetch or calculate."""
    _check_free(host, port)
    command = [sys.executable, str(HERE / "service.py"), "--data", str(data), "serve"]
    # A group of its own: Ctrl-C reaches it through us alone, and no worker of it is left when it ends.
    process = subprocess.Popen(
        [*command, "--host", host, "--port", str(port), "--workers", str(workers)], start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _check_free(host: str, port: int) -> None:
    """Raise PricingError where a port is taken: several workers may share one, so another server's would too."""
    import socket

    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise PricingError(
            f"{host}:{port} cannot be served at: {error.strerror}; name another one (demo --port, or web.port)"
        ) from error


def _until_served(web: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the endpoint answers that it is ready."""
    import http.client

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if web.poll() is not None:
            raise PricingError(f"the web process ended with code {web.returncode}; is port {port} taken? (--port)")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise PricingError("the endpoint did not become ready in 30 s")


def _stopper() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set, so that everything ends in order."""
    stop = threading.Event()

    def end(*_: object) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return stop


if __name__ == "__main__":
    main()
