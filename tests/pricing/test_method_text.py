"""The method in words: every setting is in it, and a change of any of them changes it."""

from __future__ import annotations

import copy
import datetime as dt
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.small_world import METHODOLOGY
from pricing.config import CONSULTATION, Methodology, load_methodology
from pricing.documents import method_text

ROOT = Path(__file__).resolve().parents[2] / "methodology"
SHIPPED = [ROOT / "2026-11.toml", ROOT / "demo" / "2026-11.toml"]


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a document with the way to it."""
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(inner, (*path, key))
    else:
        yield path, node


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    out = copy.deepcopy(document)
    node = out
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return out


def others(value: Any) -> list[Any]:
    """Values near one, some of which may be allowed in its place."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value * 0.999, value * 1.001, value + 0.001]
    if isinstance(value, str):
        return [value + "-x", value + " x", "2023", "metal", "oxide", "WLD", "product", "contained", "nickel/metal/CN"]
    return [value + dt.timedelta(days=1)]


def changes(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> Iterator[Methodology]:
    """Documents with another value in one place, those of them that are allowed."""
    for other in others(value):
        if other != value:
            with suppress(ValidationError):
                yield Methodology.model_validate(changed(document, path, other))


@pytest.mark.parametrize("file", SHIPPED, ids=["real", "demo"])
def test_every_number_of_the_document_changes_the_text_when_it_is_changed(file):
    document = tomllib.loads(file.read_text())
    text = method_text.plain(method_text.blocks(Methodology.model_validate(document)))
    numbers = [(path, value) for path, value in leaves(document) if isinstance(value, int | float)]
    assert len(numbers) > 60
    for path, value in numbers:
        made = list(changes(document, path, value))
        assert made, f"no other value of {path} is allowed, so it was not tested"
        assert all(method_text.plain(method_text.blocks(m)) != text for m in made), path


def test_every_other_setting_does_too():
    document = tomllib.loads(SHIPPED[1].read_text())
    whole = Methodology.model_validate(document)
    text, tested = method_text.plain(method_text.blocks(whole)), 0
    for path, value in leaves(document):
        made = None if isinstance(value, int | float) else next(changes(document, path, value), None)
        if made is not None:
            tested += 1
            assert method_text.plain(method_text.blocks(made)) != text, path
            told = method_text.differences(whole, made)
            assert path[0] in CONSULTATION or told["before"] or told["after"], path
    assert tested > 60


@pytest.mark.parametrize("file", SHIPPED, ids=["real", "demo"])
def test_every_threshold_is_named_in_the_text(file):
    document = tomllib.loads(file.read_text())
    text = method_text.plain(method_text.blocks(Methodology.model_validate(document)))
    months = {"review_month", "link_month"}
    for path, value in leaves(document):
        if isinstance(value, int | float) and not isinstance(value, bool) and path[-1] not in months:
            written = Decimal(str(value))
            forms = [f"{written.normalize():,f}", f"{(written * 100).normalize():,f} %"]
            assert any(form in text for form in forms), (path, value)


def test_a_setting_without_a_sentence_of_its_own_is_said_with_its_description():
    method = load_methodology(SHIPPED[0])
    for known in method_text._SENTENCES.values():
        assert all(set(template) & {"{"} for template in known.values())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(method_text, "_SENTENCES", {})
        text = method_text.plain(method_text.blocks(method))
    assert "Max spread: 0.15 (a contributor further than this share from the median" in text


def test_every_sentence_is_about_a_setting_that_there_is():
    for model, known in method_text._SENTENCES.items():
        assert set(known) <= set(model.model_fields), model
    assert set(method_text._HEADINGS) <= set(Methodology.model_fields)


def test_digits_are_written_in_full():
    assert [method_text.number(v) for v in (3, 0.1, 35365821.0, 1e-7, -0.25, 0)] == [
        "3", "0.1", "35,365,821", "0.0000001", "-0.25", "0",
    ]  # fmt: skip
    assert [method_text.share(v) for v in (0.15, 0.07, 1.0, 0.333)] == ["15 %", "7 %", "100 %", "33.3 %"]


def test_the_difference_of_two_methods_is_said_under_the_heading_it_stands_below(tmp_path):
    file = tmp_path / "2026-11.toml"
    file.write_text(METHODOLOGY)
    old = load_methodology(file)
    file.write_text(METHODOLOGY.replace("cap = 0.7", "cap = 0.6").replace("daily = 20", "daily = 21"))
    told = method_text.differences(old, load_methodology(file))
    assert [line.partition(": ")[0] for line in told["after"]] == [
        "Lasting differences between origins",
        "Indices, two-metals",
    ]
    assert "No market weighs more than 60 %" in told["after"][1] and "70 %" in told["before"][1]
    assert method_text.differences(old, old) == {"before": [], "after": []}
