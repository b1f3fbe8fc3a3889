"""CEL as the scheduler reads it (k8s-dra.md 5.3); needs the extra `cel`."""

from __future__ import annotations

import sys

import pytest

from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import AttributeValue, Capacity, Device, Version
from dra_driver.rules.matching import AllocationError
from dra_driver.rules.selectors import CelMatcher

DRIVER = "gpu.example.com"


@pytest.fixture(scope="module")
def matcher() -> CelMatcher:
    return CelMatcher()


def gpu(**more: AttributeValue) -> Device:
    attributes: dict[str, AttributeValue] = {
        "type": "gpu",
        "index": 3,
        "healthy": True,
        "driverVersion": Version("570.86.15"),
        "beta": Version("2.0.0-rc.2+build.5"),
        "other.example.com/rack": "r1",
        **more,
    }
    capacity = {"memory": Capacity(value=Quantity.parse("40Gi"))}
    return Device(name="gpu-0", attributes=attributes, capacity=capacity)


def holds(matcher: CelMatcher, expression: str, device: Device | None = None) -> bool:
    """`A` and `C` stand for the driver's attributes and capacity."""
    for short, field in (("A", "attributes"), ("C", "capacity")):
        expression = expression.replace(f"{short}.", f'device.{field}["{DRIVER}"].')
    return matcher.matches([expression], device or gpu(), DRIVER)


@pytest.mark.parametrize(
    "expression",
    [
        f'device.driver == "{DRIVER}"',
        'A.type == "gpu" && A.index == 3 && A.healthy',
        "A.index > 2 && A.index < 3.5",
        f'device.attributes["{DRIVER}"]["type"] == "gpu"',
        "device.attributes[device.driver].healthy",
        'device.attributes["other.example.com"].rack == "r1"',
        "!device.allowMultipleAllocations",
        'A.type.startsWith("g") && A.type.matches("[g-u]+") && A.type.upperAscii() == "GPU"',
        '"a,b".split(",").size() == 2 && "b" in "a,b".split(",")',
        f'cel.bind(a, device.attributes["{DRIVER}"], a.index == 3 && a.healthy)',
        f'device.attributes["{DRIVER}"].exists_one(name, name == "type")',
        'sets.contains(["gpu", "partition"], [A.type])',
        "sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], [2])",
        "sets.equivalent([1, 2], [2, 1, 1]) && !sets.equivalent([1], [1, 2])",
    ],
)
def test_fields_operators_and_functions(matcher: CelMatcher, expression: str) -> None:
    """All four fields of a device, names with and without domain, and the extensions that are offered."""
    assert holds(matcher, expression)


@pytest.mark.parametrize(
    "expression",
    [
        'C.memory == quantity("40960Mi") && C.memory != quantity("40G")',
        'C.memory.compareTo(quantity("41Gi")) == -1',
        'C.memory.compareTo(quantity("40Gi")) == 0',
        'C.memory.isGreaterThan(quantity("39Gi")) && C.memory.isLessThan(quantity("41Gi"))',
        'quantity("50k").asInteger() == 50000 && quantity("50k").isInteger()',
        '!quantity("50m").isInteger()',
        'quantity("500m").asApproximateFloat() == 0.5',
        'quantity("2").add(quantity("500m")) == quantity("2.5") && quantity("2").add(3) == quantity("5")',
        'quantity("2").sub(quantity("5")).sign() == -1 && quantity("2").sub(2).sign() == 0',
        'isQuantity("40Gi") && !isQuantity("40GiB")',
    ],
)
def test_quantities(matcher: CelMatcher, expression: str) -> None:
    """Compared by value, whatever the suffix."""
    assert holds(matcher, expression)


@pytest.mark.parametrize(
    "expression",
    [
        'A.driverVersion == semver("570.86.15") && A.driverVersion != semver("570.86.16")',
        'A.driverVersion.isGreaterThan(semver("570.9.0")) && A.driverVersion.isLessThan(semver("580.0.0"))',
        'A.driverVersion.compareTo(semver("570.86.15")) == 0',
        "A.driverVersion.major() == 570 && A.driverVersion.minor() == 86 && A.driverVersion.patch() == 15",
        'A.beta.isLessThan(semver("2.0.0")) && A.beta.isGreaterThan(semver("2.0.0-rc.1"))',
        'A.beta.isLessThan(semver("2.0.0-rc.10")) && A.beta.isGreaterThan(semver("2.0.0-rc"))',
        'semver("1.0.0-1").isLessThan(semver("1.0.0-a"))',
        'A.beta == semver("2.0.0-rc.2+other") && A.beta.patch() == 0',
        'isSemver("1.2.3") && !isSemver("1.2") && !isSemver("v1.2.3")',
        'isSemver("v1.2", true) && !isSemver("one", true)',
        'semver("v1.2", true) == semver("1.2.0") && semver("01.02.3-rc", true) == semver("1.2.3-rc")',
        'A.driverVersion != "570.86.15"',
    ],
)
def test_versions(matcher: CelMatcher, expression: str) -> None:
    """Semantic versions 2.0.0: ordered by precedence, equal without regard to build metadata, never equal to a string."""
    assert holds(matcher, expression)


@pytest.mark.parametrize(
    "expression",
    [
        "A.?missing.orValue(true)",
        'device.attributes["nowhere"].?missing.orValue(true)',
        "!has(A.missing) && has(A.type)",
        '!("nowhere" in device.attributes)',
        '!("nowhere" in device.attributes && device.attributes["nowhere"].missing)',
        "!('missing' in device.capacity['nowhere'])",
        'A.?type.orValue("") == "gpu"',
        "A.missing || true",
    ],
)
def test_absent_names_can_be_guarded(matcher: CelMatcher, expression: str) -> None:
    """An unknown domain is an empty map, without being there; what CEL absorbs is no error."""
    assert holds(matcher, expression)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("A.missing", "fails on device gpu.example.com/gpu-0: .*missing.*orValue"),
        ('device.attributes["nowhere"].missing == 1', "missing"),
        ('C.missing.isGreaterThan(quantity("1"))', "missing"),
        ("A.type", "STRING, not a bool"),
        ('A.type.isGreaterThan(semver("1.0.0"))', "No matching overloads"),
        ('quantity("much") == quantity("1")', "quantity 'much' is not a number"),
        ('semver("1") == semver("1.0.0")', "not a semantic version"),
        ('quantity("1m").asInteger() == 1', "isInteger"),
    ],
)
def test_runtime_errors_fail_the_attempt(
    matcher: CelMatcher, expression: str, message: str
) -> None:
    """The scheduler gives the pod up; the message names the expression, the device and what is wrong."""
    with pytest.raises(AllocationError, match=message):
        holds(matcher, expression)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("?!", "does not compile: Syntax error"),
        ("device.colour", "undeclared reference to 'device.colour'"),
        ("device.driver", "yields STRING; it has to yield a bool"),
        ("1", "yields INT; it has to yield a bool"),
        ('quantity("1") == semver("1.0.0")', "no matching overload"),
    ],
)
def test_compile_errors_fail_the_attempt(
    matcher: CelMatcher, expression: str, message: str
) -> None:
    """Whatever the device."""
    with pytest.raises(AllocationError, match=message):
        matcher.matches([expression], Device(name="any"), DRIVER)


def test_endless_expressions_are_stopped(matcher: CelMatcher) -> None:
    """There is a budget, if not the scheduler's."""
    ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
    nested = "A.healthy"
    for variable in "abcdef":
        nested = f"{ten}.all({variable}, {nested})"
    with pytest.raises(AllocationError, match="budget exceeded"):
        holds(matcher, nested)


def test_all_expressions_must_hold(matcher: CelMatcher) -> None:
    """Joined by and, from left to right; none at all match everything."""
    device = gpu()
    assert matcher.matches([], device, DRIVER)
    assert matcher.matches(["true", "true"], device, DRIVER)
    assert not matcher.matches(["true", "false"], device, DRIVER)
    assert not matcher.matches(["false", "device.attributes['nowhere'].missing"], device, DRIVER)


def test_unqualified_names_belong_to_the_driver(matcher: CelMatcher) -> None:
    """The same device, published by another driver."""
    expression = f'device.attributes["{DRIVER}"].?type.orValue("none") == "gpu"'
    assert matcher.matches([expression], gpu(), DRIVER)
    assert not matcher.matches([expression], gpu(), "other.example.com")


def test_devices_that_differ_in_type_only_are_told_apart(matcher: CelMatcher) -> None:
    """Answers are kept per device as it looks; the number 1 and true look alike to Python, not to CEL."""
    expression = f'type(device.attributes["{DRIVER}"].x) == int'
    assert matcher.matches([expression], Device(name="a", attributes={"x": 1}), DRIVER)
    assert not matcher.matches([expression], Device(name="a", attributes={"x": True}), DRIVER)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who installs dra-driver without CEL learns what to install."""
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    with pytest.raises(AllocationError, match=r"install dra-driver\[cel\]"):
        CelMatcher()
