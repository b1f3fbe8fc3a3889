"""Device selectors in CEL, as the scheduler evaluates them; needs the extra `cel`.

Beside CEL itself: optional values (`.?x.orValue(y)`), `cel.bind`, strings, and what `cel_library` adds. Of upstream's
environment these are missing: list, regex, URL, IP, CIDR and format functions, two-variable comprehensions, `includes`;
expressions that use them do not compile here. `device` exists through its four fields only. Comparing a version or a
quantity with a value of another type by `==` is false here, and an error upstream.

The binding leaks memory with every evaluation (0.2 to 2 KiB with custom functions), so answers are kept, and no process
that lives for long may use this.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from dra_driver.model.slices import AttributeValue, Device, Version
from dra_driver.rules.cel_library import Kind, encode_quantity, encode_version, library
from dra_driver.rules.matching import AllocationError

# An unknown domain is an empty map when it is looked up, and yet it is not `in` the map: the expression has to say so.
_DOMAIN_LOOKUP = re.compile(
    r"""\bdevice\s*\.\s*(attributes|capacity)\s*\[\s*("[^"\\]*"|'[^'\\]*'|device\s*\.\s*driver)\s*\]"""
)
_FORGIVING_LOOKUP = r"device.\1[?\2].orValue({})"
_POSITION = re.compile(r"^.*<input>:\d+:\d+: ")


@dataclass(frozen=True, slots=True)
class _Sight:
    """All that an expression can see of a device. Attributes carry their type, as 1 and true are equal in Python."""

    driver: str
    allow_multiple_allocations: bool
    attributes: frozenset[tuple[str, type, AttributeValue]]
    capacity: frozenset[tuple[str, bytes]]

    @classmethod
    def of(cls, device: Device, driver: str) -> Self:
        return cls(
            driver,
            device.allow_multiple_allocations,
            frozenset((name, type(value), value) for name, value in device.attributes.items()),
            frozenset((name, encode_quantity(c.value)) for name, c in device.capacity.items()),
        )

    def variables(self) -> dict[str, Any]:
        """The values of the variables that expressions are compiled with."""
        return {
            "device.driver": self.driver,
            "device.allowMultipleAllocations": self.allow_multiple_allocations,
            "device.attributes": self._by_domain((n, _encoded(v)) for n, _, v in self.attributes),
            "device.capacity": self._by_domain(self.capacity),
        }

    def _by_domain(self, values: Iterable[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
        domains: dict[str, dict[str, Any]] = defaultdict(dict)
        for name, value in values:
            domain, _, identifier = name.rpartition("/")
            domains[domain or self.driver][identifier] = value
        return dict(domains)


class CelMatcher:
    """A `Matcher`. Compiles each expression once, and evaluates it once for all devices that look the same."""

    def __init__(self) -> None:
        self._cel = _load_binding()
        self._env = _environment(self._cel)
        self._programs: dict[str, Any] = {}
        self._answers: dict[tuple[str, _Sight], bool] = {}

    def matches(self, expressions: Sequence[str], device: Device, driver: str) -> bool:
        """Whether all expressions hold for the device (none: yes); AllocationError names the one that fails."""
        if not expressions:
            return True
        sight = _Sight.of(device, driver)
        return all(self._holds(expression, sight, device.name) for expression in expressions)

    def _holds(self, expression: str, sight: _Sight, device: str) -> bool:
        key = (expression, sight)
        if key not in self._answers:
            try:
                self._answers[key] = self._evaluate(self._compiled(expression), sight)
            except ValueError as error:
                raise AllocationError(
                    f"selector {expression!r} fails on device {sight.driver}/{device}: {error}"
                ) from error
        return self._answers[key]

    def _evaluate(self, program: Any, sight: _Sight) -> bool:
        try:
            value = program.eval(data=sight.variables())
        except RuntimeError as error:
            raise ValueError(f"{error}; simplify it") from error
        if value.type() == self._cel.Type.BOOL:
            return bool(value.value())
        if value.type() == self._cel.Type.ERROR:
            raise ValueError(
                f"{value.value()}; guard what may be absent, like .?name.orValue(false)"
            )
        raise ValueError(f"the result is {value.type()}, not a bool; compare it with something")

    def _compiled(self, expression: str) -> Any:
        if expression not in self._programs:
            self._programs[expression] = self._compile(expression)
        return self._programs[expression]

    def _compile(self, expression: str) -> Any:
        try:
            program = self._env.compile(_DOMAIN_LOOKUP.sub(_FORGIVING_LOOKUP, expression))
        except RuntimeError as error:
            detail = _POSITION.sub("", str(error).splitlines()[0])
            raise AllocationError(f"selector {expression!r} does not compile: {detail}") from error
        result = program.return_type()
        if result not in (self._cel.Type.BOOL, self._cel.Type.DYN):
            raise AllocationError(
                f"selector {expression!r} yields {result}; it has to yield a bool"
            )
        return program


def _encoded(value: AttributeValue) -> bool | int | str | list[str]:
    return encode_version(value.text) if isinstance(value, Version) else value


def _load_binding() -> Any:
    try:
        from cel_expr_python import cel  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise AllocationError(
            "selectors cannot be evaluated without cel-expr-python: install dra-driver[cel]"
        ) from error
    return cel


def _environment(cel: Any) -> Any:
    from cel_expr_python.ext import ext_bindings, ext_optional, ext_strings  # noqa: PLC0415 - an optional extra

    types = _types(cel)

    def domains(value: Any) -> Any:
        return cel.Type.Map(types["string"], cel.Type.Map(types["string"], value))

    return cel.NewEnv(
        variables={
            "device.driver": types["string"],
            "device.allowMultipleAllocations": types["bool"],
            "device.attributes": domains(cel.Type.DYN),
            "device.capacity": domains(types["quantity"]),
        },
        extensions=[
            ext_bindings.ExtBindings(),
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
        ],
        functions=_declarations(cel, types),
    )


def _declarations(cel: Any, types: Mapping[Kind, Any]) -> list[Any]:
    overloads: dict[str, list[Any]] = defaultdict(list)
    for function in library():
        overloads[function.name].append(
            cel.Overload(
                f"{function.name}({','.join(function.parameters)})",
                return_type=types[function.result],
                parameters=[types[kind] for kind in function.parameters],
                is_member=function.member,
                impl=function.apply,
            )
        )
    return [cel.FunctionDecl(name, group) for name, group in overloads.items()]


def _types(cel: Any) -> dict[Kind, Any]:
    return {
        "bool": cel.Type.BOOL,
        "int": cel.Type.INT,
        "float": cel.Type.DOUBLE,
        "string": cel.Type.STRING,
        "list": cel.Type.List(cel.Type.DYN),
        "quantity": cel.Type.BYTES,
        "version": cel.Type.List(cel.Type.STRING),
    }
