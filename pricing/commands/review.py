"""``lodemark review``: what was held back, and the decisions of persons."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import click

if TYPE_CHECKING:
    from pricing.decisions import Decision, Frequency
    from pricing.judgement import OverrideKind
    from pricing.pipeline import Workspace

Table = Callable[[list[dict[str, Any]]], None]


class Opener(Protocol):
    """Opens the data folder of a command line; ``looking`` takes one of any kind."""

    def __call__(self, ctx: click.Context, *, looking: bool = False) -> AbstractContextManager[Workspace]:
        """Open it."""


_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable answer.")
_actor = click.option("--actor", required=True, metavar="NAME", help="Who decides.")
_comment = click.option("--comment", default="", help="In the actor's own words; shown to auditors only.")
_reason = click.option("--reason", required=True, metavar="CODE", help="One of 'lodemark review reasons'.")


def _by_hand(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what every decision needs: a reason, who decides, and in which words."""
    return _reason(_actor(_comment(_as_json(click.pass_context(command)))))


def review_commands(workspace: Opener, table: Table) -> click.Group:
    """Return the group ``review``.

    Parameters
    ----------
    workspace, table : callable
        How the command line opens the data folder, and how it prints rows.
    """

    def tell(one: Decision, as_json: bool, **more: Any) -> None:
        facts = {**one.model_dump(mode="json"), **more}
        if as_json:
            click.echo(json.dumps(facts, indent=2))
            return
        waits = getattr(one, "persons", 1) > 1
        click.echo(f"decision {one.number} recorded: {_words(facts)}")
        click.echo(
            f"proposed: 'lodemark review confirm {one.number} --actor NAME' by another person puts it into effect"
            if waits
            else "in effect: releases after this instant show it"
        )

    @click.group("review", invoke_without_command=True)
    @_as_json
    @click.pass_context
    def group(ctx: click.Context, as_json: bool) -> None:
        """Decide what was held back; override a determination; show who decided what and why."""
        if ctx.invoked_subcommand is None:
            ctx.invoke(listing, as_json=as_json)

    @group.command("list")
    @_as_json
    @click.pass_context
    def listing(ctx: click.Context, as_json: bool) -> None:
        """List figures held back with their evidence, proposals that wait, and overrides in force."""
        from pricing import review

        with workspace(ctx, looking=True) as ws:
            found = review.listed(ws)
        if as_json:
            click.echo(json.dumps(found, indent=2))
            return
        click.echo(f"held back: {len(found['held']) or 'nothing'}")
        table([{**row, "known": _known(row["known"]), "document": row["document"][:12]} for row in found["held"]])
        click.echo(f"held back in determinations: {len(found['slips']) or 'nothing'}")
        table([{k: row[k] for k in ("market", "frequency", "period", "origin", "why")} for row in found["slips"]])
        if found["slips"]:
            click.echo("  let one in: lodemark review override MARKET PERIOD --frequency … --include ORIGIN")
        for what, rows in (("waiting for a second person", found["proposed"]), ("in force", found["overrides"])):
            click.echo(f"{what}: {len(rows) or 'nothing'}")
            for row in rows:
                click.echo(f"  {row['number']}: {_words(row)}, {row['actor']}, {row['at']}")

    def deciding(kind: Literal["accept", "reject"], says: str) -> None:
        @group.command(kind, help=says)
        @click.argument("finding", type=int)
        @_by_hand
        def decide(ctx: click.Context, finding: int, reason: str, actor: str, comment: str, as_json: bool) -> None:
            from pricing import review

            with workspace(ctx) as ws:
                one = review.on_finding(ws, kind, finding, reason, actor, comment)
            tell(one, as_json)

    deciding("accept", "Let a figure in that FINDING held back: it is known from now on.")
    deciding("reject", "Keep a figure out that FINDING held back, and ask no more about it.")

    @group.command("override")
    @click.argument("market")
    @click.argument("span", metavar="PERIOD[/PERIOD]")
    @click.option("--frequency", type=click.Choice(["daily", "ten-day", "monthly"]), required=True)
    @click.option("--exclude", metavar="ORIGIN", help="Set an origin aside.")
    @click.option("--include", metavar="ORIGIN", help="Keep an origin that disagrees with the others.")
    @click.option("--suspend", is_flag=True, help="No price.")
    @click.option("--price", type=float, metavar="N", help="This price, in the market's unit; one period.")
    @_by_hand
    def override(
        ctx: click.Context,
        market: str,
        span: str,
        frequency: Frequency,
        exclude: str | None,
        include: str | None,
        suspend: bool,
        price: float | None,
        reason: str,
        actor: str,
        comment: str,
        as_json: bool,
    ) -> None:
        """Override the determinations of MARKET (such as tin/metal/XCN) in a span of periods."""
        from pricing import review

        ways: dict[OverrideKind, bool] = {
            "exclude": exclude is not None,
            "include": include is not None,
            "suspend": suspend,
            "price": price is not None,
        }
        chosen = [kind for kind, given in ways.items() if given]
        if len(chosen) != 1:
            raise click.UsageError("name one of --exclude ORIGIN, --include ORIGIN, --suspend, --price N")
        origin = exclude or include or ""
        with workspace(ctx) as ws:
            one = review.override(
                ws, chosen[0], market, frequency, span, reason, actor, origin=origin, price=price, comment=comment
            )
            near = review.beside(ws, one) if price is not None else None
        tell(one, as_json, **({"beside": near} if price is not None else {}))

    @group.command("confirm")
    @click.argument("decision", type=int)
    @_actor
    @_comment
    @_as_json
    @click.pass_context
    def confirm(ctx: click.Context, decision: int, actor: str, comment: str, as_json: bool) -> None:
        """Agree to a proposed DECISION as the second person; it takes effect."""
        from pricing import review

        with workspace(ctx) as ws:
            one = review.confirm(ws, decision, actor, comment)
        tell(one, as_json)

    @group.command("revoke")
    @click.argument("decision", type=int)
    @_by_hand
    def revoke(ctx: click.Context, decision: int, reason: str, actor: str, comment: str, as_json: bool) -> None:
        """End an override, a rejection or a proposal from now on; what was released under it stays."""
        from pricing import review

        with workspace(ctx) as ws:
            one = review.revoke(ws, decision, reason, actor, comment)
        tell(one, as_json)

    @group.command("log")
    @click.pass_context
    def log(ctx: click.Context) -> None:
        """Print every decision ever taken, one JSON object a line: the bytes whose hash is in the manifests."""
        with workspace(ctx, looking=True) as ws:
            for one in ws.store.decisions():
                click.echo(one)

    @group.command("reasons")
    @_as_json
    def reasons(as_json: bool) -> None:
        """List the reason codes, and what they may be given for."""
        from pricing.decisions import REASONS

        rows = [
            {"reason": code, "for": ", ".join(sorted(kinds)), "text": text} for code, (text, kinds) in REASONS.items()
        ]
        click.echo(json.dumps(rows, indent=2)) if as_json else table(rows)

    return group


def _known(known: dict[str, Any] | None) -> str:
    return "nothing" if known is None else f"{known['value']} ({known['status']})"


def _words(facts: dict[str, Any]) -> str:
    """Say one decision in a line."""
    kind, by = facts["kind"], f"{facts.get('reason')} ({facts.get('reason_text')})"
    if kind == "confirm":
        return f"confirm decision {facts['decision']}"
    if kind == "revoke":
        return f"revoke decision {facts['decision']}, {by}"
    if kind in ("accept", "reject"):
        return f"{kind} {facts['series']} {facts['period']} {facts['value']!r}, {by}"
    span = facts["first"] if facts["first"] == facts["last"] else f"{facts['first']} to {facts['last']}"
    what = facts["origin"] or ("" if facts["price"] is None else repr(facts["price"]))
    near = facts.get("beside")
    beside = f", {near['distance']:+.1%} from {near['value']!r} of {near['period']}" if near else ""
    return f"{kind} {what} in {facts['market']} {facts['frequency']} {span}, {by}{beside}".replace("  ", " ")
