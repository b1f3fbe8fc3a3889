from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.model.errors import QuantityError
from dra_driver.model.quantity import Family, Quantity

FAMILIES = st.sampled_from(["decimal", "binary", "exponent"])
NANOS = st.one_of(
    st.integers(-(10**27), 10**27),
    st.integers(-(2**50), 2**50).map(lambda value: value * 1024 * 10**9),
    st.builds(lambda value, power: value * 10**power, st.integers(-2000, 2000), st.integers(0, 24)),
)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("0", "0"),
        ("0Gi", "0"),
        ("-0", "0"),
        ("1024Mi", "1Gi"),
        ("0.5Gi", "512Mi"),
        ("1.5Gi", "1536Mi"),
        ("80Gi", "80Gi"),
        ("1024", "1024"),
        ("1Ki", "1Ki"),
        ("1023Ki", "1023Ki"),
        ("0.5Ki", "512"),
        ("0.0001Ki", "102400u"),
        ("1.0001Ki", "1024102400u"),
        ("-1024Mi", "-1Gi"),
        ("-1Ki", "-1Ki"),
        ("7Ei", "7Ei"),
        ("8Ei", "9223372036854775807"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.1", "100m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1000000", "1M"),
        ("1001", "1001"),
        (".5", "500m"),
        ("5.", "5"),
        ("+5", "5"),
        ("-1.5", "-1500m"),
        ("1E", "1E"),
        ("1000E", "1e21"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e6", "12e6"),
        ("1e4", "10e3"),
        ("1e+3", "1e3"),
        ("1e-3", "1e-3"),
        ("1e0", "1"),
        ("100e1", "1e3"),
        ("1n", "1n"),
        ("0.9n", "1n"),
        ("-0.9n", "-1n"),
        ("0.0000000010000000000000000000000000000000001", "2n"),
        ("1.2345", "1234500u"),
    ],
)
def test_canonical_form(written: str, canonical: str) -> None:
    """Printed as k8s.io/apimachinery does: whole numbers, the largest suffix that loses nothing, the family kept."""
    assert str(Quantity.parse(written)) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "1 Gi",
        " 1",
        "1\n",
        "Gi",
        ".",
        "+",
        "e3",
        "1e",
        "1e1.5",
        "1K",
        "1ki",
        "1GiB",
        "1i",
        "1.2.3",
        "1+1",
        "--1",
        "1_000",
        "0x10",
        "1,5",
        "NaN",
        "inf",
        "\u0661Gi",
        "9" * 200,
    ],
)
def test_refusals_name_the_text(written: str) -> None:
    """Anything else is refused with a message that shows it and an example of what is right."""
    with pytest.raises(QuantityError) as caught:
        Quantity.parse(written)
    assert repr(written) in str(caught.value)
    assert "80Gi" in str(caught.value)


@given(nanos=NANOS, family=FAMILIES)
def test_printing_loses_nothing(nanos: int, family: Family) -> None:
    """Whatever is printed reads back as an equal quantity; what was read once prints the same for ever.

    (Not the first time: 5000 bytes print as `5000`, which the API server reads as a decimal and prints as `5k`.)
    """
    quantity = Quantity(nanos, family)
    again = Quantity.parse(str(quantity))
    assert again == quantity
    assert str(Quantity.parse(str(again))) == str(again)


@given(
    number=st.decimals(min_value=-(10**6), max_value=10**6, places=4).map(lambda d: f"{d:f}"),
    suffix=st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-2"]),
)
def test_value_is_exact_or_rounded_away_from_zero(number: str, suffix: str) -> None:
    """The value is number times suffix, to the nano, never nearer to zero than what was written."""
    factors = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "e3": 3, "E-2": -2}
    powers = {"Ki": 1, "Mi": 2, "Gi": 3}
    factor = Fraction(10) ** factors[suffix] if suffix in factors else 1024 ** powers[suffix]
    exact = Fraction(number) * factor * 10**9
    nanos = Quantity.parse(number + suffix).nanos
    assert 0 <= abs(nanos) - abs(exact) < 1
    assert nanos * exact >= 0


def test_comparison_is_by_value() -> None:
    """1024Mi and 1Gi are one quantity, also as keys; 1Gi is more than 1G."""
    assert Quantity.parse("1024Mi") == Quantity.parse("1Gi") == Quantity.of_bytes(2**30)
    assert len({Quantity.parse("1024Mi"), Quantity.parse("1Gi"), Quantity.of(2**30)}) == 1
    assert Quantity.parse("1Gi") > Quantity.parse("1G")


def test_sums_keep_the_family() -> None:
    """A sum prints like its first part, or like the second where the first is zero, as Quantity.Add does."""
    gi, k = Quantity.parse("1Gi"), Quantity.parse("1024k")
    assert str(gi + gi) == "2Gi"
    assert str(k + Quantity.of(0)) == "1024k"
    assert str(Quantity.of(0) + gi) == "1Gi"
    assert str(Quantity.of(0) - gi) == "-1Gi"
    assert str(gi - gi) == "0"


@pytest.mark.parametrize(
    ("written", "whole"),
    [("1500m", 2), ("-1500m", -2), ("1", 1), ("1n", 1), ("0", 0), ("2Ki", 2048)],
)
def test_whole_value_is_rounded_away_from_zero(written: str, whole: int) -> None:
    """int() is Quantity.Value(): who asks for a part gets at least one."""
    assert int(Quantity.parse(written)) == whole
