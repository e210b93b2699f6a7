"""``lodemark alerts``: what was told to whom, and what a person does about it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from pricing.commands.review import Opener, Table
from pricing.errors import PricingError

if TYPE_CHECKING:
    from pricing.pipeline import Workspace

_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable answer.")
_actor = click.option("--actor", required=True, metavar="NAME", help="Who does it.")
_SHOWN = ("identifier", "sent", "list", "state", "msgType", "severity", "certainty", "headline")


def alert_commands(workspace: Opener, table: Table) -> click.Group:
    """Return the group ``alerts``.

    Parameters
    ----------
    workspace, table : callable
        How the command line opens the data folder, and how it prints rows.
    """

    @click.group("alerts", invoke_without_command=True)
    @_as_json
    @click.pass_context
    def group(ctx: click.Context, as_json: bool) -> None:
        """Show alerts and what was sent of them; acknowledge, send again, cancel; try a subscriber."""
        if ctx.invoked_subcommand is None:
            ctx.invoke(listing, every=False, as_json=as_json)

    @group.command("list")
    @click.option("--all", "every", is_flag=True, help="Those that are over or cancelled too.")
    @_as_json
    @click.pass_context
    def listing(ctx: click.Context, every: bool, as_json: bool) -> None:
        """List open alerts by their latest message, and how many messages wait, were sent or given up."""
        with workspace(ctx, looking=True) as ws:
            latest = {one["thread"]: one for one in ws.store.alerts()}
            counts, gone, seen = ws.store.outbox_counts(), ws.store.suppressed(), ws.store.acknowledged()
        rows = [
            {**{k: one[k] for k in _SHOWN}, "acknowledged": seen.get(thread, {}).get("actor", "")}
            for thread, one in latest.items()
            if every or one["state"] == "open"
        ]
        if as_json:
            click.echo(json.dumps({"alerts": rows, "outbox": counts, "suppressed": gone}, indent=2))
            return
        click.echo(f"alerts: {len(rows) or 'none'}{'' if every else ' open'}")
        table(rows)
        click.echo("outbox: " + (", ".join(f"{n} {state}" for state, n in counts.items()) or "empty"))
        for address, reason in gone.items():
            click.echo(f"nothing is sent to {address}: {reason}")

    @group.command("show")
    @click.argument("identifier")
    @_as_json
    @click.pass_context
    def show(ctx: click.Context, identifier: str, as_json: bool) -> None:
        """Show an alert: every message of it, and to whom each went."""
        with workspace(ctx, looking=True) as ws:
            docs = _thread(ws, identifier)
            sent = {one["identifier"]: ws.store.outbox(one["identifier"]) for one in docs}
            seen = ws.store.acknowledged().get(docs[0]["thread"])
        if as_json:
            click.echo(json.dumps({"alerts": docs, "outbox": sent, "acknowledged": seen}, indent=2))
            return
        for one in docs:
            click.echo(f"{one['identifier']}  {one['sent']}  {one['msgType']}, {one['severity']}, {one['certainty']}")
            for text in (one["headline"], one["why"], one["description"]):
                click.echo("".join(f"  {line}\n" for line in text.splitlines()), nl=False)
            table([{k: d[k] for k in _OF_DELIVERY} for d in sent[one["identifier"]]])
        if seen:
            click.echo(f"acknowledged by {seen['actor']} at {seen['at']}: {seen['comment']}")

    @group.command("ack")
    @click.argument("identifier")
    @_actor
    @click.option("--comment", default="", help="What is done about it.")
    @click.pass_context
    def acknowledge(ctx: click.Context, identifier: str, actor: str, comment: str) -> None:
        """Note that somebody sees to an alert: the operator hears of it again when it is worse, or over."""
        with workspace(ctx) as ws:
            thread = _thread(ws, identifier)[0]["thread"]
            ws.store.acknowledge(thread, ws.now(), actor, comment)
        click.echo(f"{thread}: acknowledged")

    @group.command("resend")
    @click.argument("identifier")
    @click.option("--to", metavar="NAME", help="To this subscriber only.")
    @click.pass_context
    def resend(ctx: click.Context, identifier: str, to: str | None) -> None:
        """Send the message IDENTIFIER again to all who were told, under the same message ids."""
        from pricing.pipeline import writing

        with workspace(ctx) as ws, writing(ws.data):
            _thread(ws, identifier)
            count = ws.store.send_again(identifier, ws.now(), to)
        if not count:
            raise PricingError(f"{identifier}: nothing that was sent or given up{f' to {to}' if to else ''}")
        click.echo(f"{count} in the outbox")

    @group.command("cancel")
    @click.argument("identifier")
    @click.option("--reason", required=True, help="In words for those who were told.")
    @_actor
    @click.pass_context
    def cancel(ctx: click.Context, identifier: str, reason: str, actor: str) -> None:
        """Say to all who were told that an alert was an error; its shocks are told of no more."""
        from pricing import pipeline

        with workspace(ctx) as ws:
            message = pipeline.cancel_alert(ws, _thread(ws, identifier)[0]["thread"], reason, actor)
            count = len(ws.store.outbox(message["identifier"]))
        click.echo(f"{message['identifier']}: {count} in the outbox")

    @group.command("test")
    @click.argument("name")
    @click.pass_context
    def test(ctx: click.Context, name: str) -> None:
        """Send a marked exercise to the subscriber NAME over all channels, at once, with all else that is due."""
        from pricing import outbox, pipeline

        with workspace(ctx) as ws:
            message, _ = pipeline.exercise(ws, name)
            rules, told = ws.operation.alerts, ws.operation.subscribers
            done = outbox.turn(ws.store, rules, told, ws.environ, ws.data, ws.now)
            sent = ws.store.outbox(message["identifier"])
        click.echo(f"{message['identifier']}: {done or 'nothing went out'}")
        table([{k: d[k] for k in _OF_DELIVERY} for d in sent])
        if any(d["state"] != "sent" for d in sent):
            raise PricingError(f"{name}: the exercise did not arrive")

    @group.command("bounce")
    @click.pass_context
    def bounce(ctx: click.Context) -> None:
        """Read a returned mail from standard input: an address that does not exist is sent nothing more."""
        from pricing import bounces, outbox

        found = bounces.read(sys.stdin.buffer.read())
        with workspace(ctx) as ws:
            click.echo(outbox.returned(ws.store, found, ws.now()))

    @group.command("allow")
    @click.argument("address")
    @click.pass_context
    def allow(ctx: click.Context, address: str) -> None:
        """Send to an ADDRESS again that refused mail before."""
        from pricing.pipeline import writing

        with workspace(ctx) as ws, writing(ws.data):
            if not ws.store.allow(address):
                raise PricingError(f"{address}: is not suppressed")
        click.echo(f"{address}: alerts are sent again")

    return group


_OF_DELIVERY = ("subscriber", "channel", "address", "state", "attempts", "digest", "outcome")


def _thread(ws: Workspace, identifier: str) -> list[dict[str, Any]]:
    """All messages of the alert that one of them belongs to."""
    thread = next((one["thread"] for one in ws.store.alerts() if one["identifier"] == identifier), None)
    if thread is None:
        raise PricingError(f"no alert {identifier}: 'lodemark alerts list --all' names them")
    return ws.store.alerts(thread=thread)
