"""What every document of one release has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pricing.config import Audience, Customs, Methodology, Operation
from pricing.figures import Eligible

RECENT = {"monthly": 36, "ten-day": 36, "daily": 66}  # values inside a current document; the history has the rest
NOTE = "Indicators for information: self-assessment, not assured; not for use in contracts."


@dataclass(frozen=True)
class Edition:
    """What every document of one release has in common."""

    audience: Audience
    number: int
    vintage: str
    released_at: str
    next_release: str | None
    simulated: bool
    replayed: bool
    operation: Operation
    methodology: Methodology
    eligible: Eligible

    def meta(self, name: str, sources: Iterable[str] = (), *, codes: bool = False) -> dict[str, Any]:
        """Head of a current document."""
        return {
            "id": name,
            "release": self.number,
            "vintage": self.vintage,
            "released_at": self.released_at,
            "next_release": self.next_release,
            **self.part_meta(sources, codes=codes),
        }

    def part_meta(self, sources: Iterable[str] = (), *, codes: bool = False) -> dict[str, Any]:
        """Head of a yearly part: nothing in it changes from release to release. ``codes``: it rests on tariff codes."""
        names = sorted(set(sources))
        return {
            "audience": self.audience,
            "simulated": self.simulated,
            **({"warning": "Simulated prices: no real market."} if self.simulated else {}),
            "replayed": self.replayed,
            "methodology": {"id": self.methodology.id, "sha256": self.methodology.sha256},
            **({"codes": {"sha256": self.methodology.codes_sha256}} if codes else {}),
            "sources": [
                {
                    "id": n,
                    "publisher": self.operation.sources[n].publisher,
                    "attribution": self.operation.sources[n].attribution,
                    "licence": self.operation.sources[n].licence,
                }
                for n in names
            ],
            "note": NOTE,
        }

    @cached_property
    def source_of(self) -> dict[str, str]:
        """Source of each series."""
        return self.operation.source_of()

    @cached_property
    def fx_sources(self) -> set[str]:
        """Sources of exchange rates."""
        return {self.source_of[s.id] for s in self.eligible.series.values() if s.kind == "fx"}

    @cached_property
    def customs_of(self) -> dict[str, tuple[str, Customs]]:
        """Source and settings of each origin of customs statistics."""
        found = ((name, self.operation.sources[name].customs) for name in sorted(self.eligible.customs))
        return {customs.origin: (name, customs) for name, customs in found if customs is not None}


Kept = Callable[[str, str], bytes | None]
"""(file name, fingerprint of what it is made from) to the bytes of the release before, if those stand."""
