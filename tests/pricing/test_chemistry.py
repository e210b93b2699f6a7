from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.chemistry import ATOMIC_WEIGHTS, mass_fraction, molar_mass
from pricing.errors import UnitError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_every_compound_of_the_reference_table_has_its_printed_mass_fraction_and_factor():
    table = pd.read_csv(SHARED / "reference" / "stoichiometry.csv")
    assert len(table) > 40
    for row in table.itertuples():
        # one unit of the last printed digit: the table was made from weights rounded to three decimals
        assert mass_fraction(row.element, row.compound) == pytest.approx(row.element_mass_fraction, abs=1e-5)
        assert 1 / mass_fraction(row.element, row.compound) == pytest.approx(row.element_to_compound, abs=1e-4)
        assert molar_mass(row.compound) == pytest.approx(row.molar_mass, abs=2.5e-3)
        if row.element == "Li":
            lce = mass_fraction("Li", row.compound) / mass_fraction("Li", "Li2CO3")
            assert lce == pytest.approx(row.lce_factor, abs=1e-4)


@pytest.mark.parametrize(
    ("formula", "grams"),
    [
        ("H2O", 18.015),
        ("NaCl", 58.44),
        ("Ca(OH)2", 74.092),
        ("CuSO4.5H2O", 249.68),
        ("CuSO4·5H2O", 249.68),
        ("Al2(SO4)3", 342.13),  # 342.15 with weights of the 1990s
        ("(NH4)2Fe(SO4)2.6H2O", 392.12),
        ("Ca5(PO4)3F", 504.30),
        ("U3O8", 842.08),
    ],
)
def test_molar_masses_agree_with_those_on_the_bottle(formula, grams):
    assert molar_mass(formula) == pytest.approx(grams, abs=0.025)


def test_nested_parentheses_multiply():
    assert molar_mass("(Co(NH3)2)3") == pytest.approx(3 * (58.933194 + 2 * (14.007 + 3 * 1.008)))


def test_the_weights_grow_along_the_periodic_table_but_for_its_known_inversions():
    symbols = list(ATOMIC_WEIGHTS)
    falling = [(a, b) for a, b in zip(symbols, symbols[1:], strict=False) if ATOMIC_WEIGHTS[a] >= ATOMIC_WEIGHTS[b]]
    assert falling == [("Co", "Ni"), ("Te", "I")]  # Ar/K is not in the table, which has no noble gases


def test_the_oxide_of_the_price_floor_is_a_mixture_of_two_elements():
    # 75 % Nd2O3 and 25 % Pr6O11 by mass: 0.75 * 0.85736 + 0.25 * 0.82770
    assert mass_fraction("Nd+Pr", "75% Nd2O3 + 25% Pr6O11") == pytest.approx(0.84994, abs=1e-5)


def test_the_order_of_a_mixture_does_not_matter():
    assert mass_fraction("Pr+Nd", "25%Pr6O11+75%Nd2O3") == pytest.approx(
        mass_fraction("Nd+Pr", "75% Nd2O3 + 25% Pr6O11")
    )


@settings(deadline=None)
@given(st.sampled_from(["Fe", "Li", "W", "U"]), st.integers(1, 60), st.integers(1, 60))
def test_the_shares_of_all_elements_add_up_to_one(symbol, n, m):
    formula = f"{symbol}{n}O{m}"
    assert mass_fraction(symbol, formula) + mass_fraction("O", formula) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("", "not understood"),
        ("Xx2O", "'Xx'"),
        ("wo3", "not understood"),
        ("W O3", "not understood"),
        ("WO3)", "not opened"),
        ("(WO3", "not understood"),
        ("Ni0Co1", "not understood"),
        ("Li1.5O2", "only a hydrate"),
        ("NiSO4.6", "only a hydrate"),
        ("product", "not understood"),
    ],
)
def test_a_formula_that_is_not_one_is_refused(formula, says):
    with pytest.raises(UnitError, match=says):
        molar_mass(formula)


@pytest.mark.parametrize(
    ("element", "compound", "says"),
    [
        ("Co", "WO3", "holds no 'Co'"),
        ("Nd+Pr", "Nd2O3", "holds no 'Pr'"),
        ("Nd", "75% Nd2O3 + 20% Pr6O11", "add up to 100 %"),
        ("Nd", "75% Nd2O3 + Pr6O11", "add up to 100 %"),
    ],
)
def test_an_element_that_the_compound_does_not_hold_is_refused(element, compound, says):
    with pytest.raises(UnitError, match=says):
        mass_fraction(element, compound)
