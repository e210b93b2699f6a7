"""What all settings are made of: frozen models that refuse an unknown key, and the kinds of text in them."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Stage = Literal["ore", "concentrate", "intermediate", "chemical", "oxide", "metal"]
Zone = Literal["CN", "XCN", "WLD"]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]

_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}  # text that reads the other way round


def time_zone(name: str) -> str:
    """Return the name of a time zone. Raises ValueError where there is none of that name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone of that name, such as Europe/Berlin: {name!r}") from error
    return name


def _cron(expression: str) -> str:
    if any(c.isdigit() for c in " ".join(expression.split()[4:])):
        raise ValueError("weekdays by name, such as mon-fri: programs do not agree on their numbers")
    try:
        CronTrigger.from_crontab(expression)
    except ValueError as error:
        raise ValueError(f"not five cron fields (minute hour day month weekday): {error}") from error
    return expression


def one_line(text: str) -> str:
    """Return text that may stand in the header of a message. Raises ValueError for whatever could end the line."""
    bad = next((c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") or c in _TURNING), None)
    if bad is not None:
        raise ValueError(f"one line of text, without line ends and control characters (U+{ord(bad):04X})")
    return text


TimeZoneName = Annotated[str, AfterValidator(time_zone)]
CronExpression = Annotated[str, AfterValidator(_cron)]
OneLine = Annotated[str, AfterValidator(one_line)]


class Settings(BaseModel):
    """Base of all settings: frozen, and a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)
