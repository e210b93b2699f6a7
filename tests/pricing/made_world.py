"""The made market of ``benchmarks.small_world`` on loopback, in a data folder, with a clock that the test sets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import small_world
from benchmarks.small_world import NOW
from pricing import config, figures, pipeline, releases
from pricing.fetch import Client


class World:
    """A data folder, the made sources on loopback, and a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.round, self.now = 1, NOW[1]
        self.server = small_world.publisher(lambda: self.round)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        self._serving = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._serving.start()
        file = small_world.write(folder, self.base)
        self.data = folder / "data"
        self.operation = config.load_operation(file)
        self.methodology = config.load_methodology(folder / "methodology")
        config.check_references(self.operation, self.methodology)
        figures.check_units(self.operation, self.methodology)

    def stop(self) -> None:
        self.server.shutdown()
        self._serving.join()
        self.server.server_close()

    def set_source(self, name: str, **changes: Any) -> None:
        source = self.operation.sources[name].model_copy(update=changes)
        self.operation = self.operation.model_copy(update={"sources": {**self.operation.sources, name: source}})

    def second_round(self) -> None:
        self.round, self.now = 2, NOW[2]

    def opened(self) -> Any:
        return pipeline.opened(self.data, self.operation, self.methodology, lambda: self.now)

    def collect(self, *names: str) -> dict[str, pipeline.Outcome]:
        with self.opened() as ws:
            client = Client(ws.operation.fetch, ws.archive, ws.now, first_wait=0.01)
            out = pipeline.collect(ws, client, names or list(ws.operation.sources))
        return {o.source: o for o in out}

    def release(self, audience: config.Audience = "public") -> releases.Release:
        with self.opened() as ws:
            return pipeline.release(ws, audience, self.now, {})

    def status(self) -> dict[str, Any]:
        with self.opened() as ws:
            return pipeline.status(ws)

    def findings(self, source: str) -> list[dict[str, Any]]:
        with self.opened() as ws:
            return [f for f in ws.store.findings() if f["source"] == source]

    def known(self) -> dict[tuple[str, str], float]:
        with self.opened() as ws:
            rows = ws.store.observations()
        return dict(zip(zip(rows["series"], rows["period"], strict=True), rows["value"], strict=True))


@contextmanager
def serving(folder: Path) -> Iterator[World]:
    made = World(folder)
    try:
        yield made
    finally:
        made.stop()


def told(name: str, round_: int) -> dict[tuple[str, str], float]:
    """What a source's document says, read by this test's own reader."""
    head, *lines = (line.split(",") for line in small_world.document(name, round_).decode().split())
    return {(f"{name}-{h}", line[0]): float(v) for line in lines for h, v in zip(head[1:], line[1:], strict=True)}


def numbers(node: Any) -> Iterator[float]:
    if isinstance(node, dict):
        for inner in node.values():
            yield from numbers(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from numbers(inner)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield float(node)
