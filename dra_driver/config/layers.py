"""Settings from four layers: defaults < file < environment < flags, and from which of them each one came.

A setting is a field of a flat pydantic model with a description. Its key in a file (`nodeName`), its flag (`--node-name`)
and its variable (`DRA_NODE_NAME`) follow from the field's name, so that nothing is declared twice. The file is strict in
keys and types. A variable that is empty counts as not set (charts render those); other `DRA_*` variables are none of our
business: the kubelet makes some for every Service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dra_driver.config.problems import choices_of, explain
from dra_driver.config.strict_yaml import load_mapping
from dra_driver.model.errors import SettingsError

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting and the names it goes by. `default` is None where it must be set, or where not set means something."""

    attribute: str
    key: str
    kind: type
    choices: tuple[str, ...]
    default: object
    required: bool
    description: str

    @property
    def flag(self) -> str:
        """`--node-name`."""
        return "--" + self.attribute.replace("_", "-")

    @property
    def variable(self) -> str:
        """`DRA_NODE_NAME`."""
        return "DRA_" + self.attribute.upper()

    @property
    def values(self) -> str:
        """What may be written, in a word: `auto|full|plain`, or TEXT, PATH, INTEGER, NUMBER."""
        names = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
        return "|".join(self.choices) or names.get(self.kind, "TEXT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(Generic[S]):
    """The settings in force, and for each key the layer it came from (`default`, `file /x.yaml`, `flag --node-name`)."""

    settings: S
    origins: Mapping[str, str]


def settings_of(model: type[BaseModel]) -> tuple[Setting, ...]:
    """The settings that the model declares, in its order."""
    return tuple(_setting(name, field) for name, field in model.model_fields.items())


def resolve(
    model: type[S],
    *,
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, str | None],
) -> Resolved[S]:
    """The settings in force; SettingsError naming the layer, the key, the value and the fix.

    `flags` maps attributes to what was given on the command line, None where nothing was.
    """
    values: dict[str, object] = {}
    origins = {setting.key: "default" for setting in settings_of(model)}
    if file is not None:
        values |= _read(file)
        origins |= dict.fromkeys(values, f"file {file}")
    for setting in settings_of(model):
        variable, flag = environment.get(setting.variable), flags.get(setting.attribute)
        if flag is not None:
            values[setting.key] = _typed(setting, flag)
            origins[setting.key] = f"flag {setting.flag}"
        elif variable:
            values[setting.key] = _typed(setting, variable)
            origins[setting.key] = f"environment variable {setting.variable}"
    try:
        settings = model.model_validate(values, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SettingsError(_complaint(error, model, origins)) from error
    return Resolved(settings=settings, origins=origins)


def _setting(attribute: str, field: FieldInfo) -> Setting:
    return Setting(
        attribute=attribute,
        key=field.alias or attribute,
        kind=_kind(field.annotation),
        choices=choices_of(field.annotation),
        default=None if field.is_required() else field.default,
        required=field.is_required(),
        description=field.description or "",
    )


def _kind(annotation: object) -> type:
    """The plain type below `| None`, Annotated and Literal."""
    if isinstance(annotation, type):
        return annotation
    return str if choices_of(annotation) else _kind(get_args(annotation)[0])


def _read(file: Path) -> dict[str, object]:
    try:
        return load_mapping(file.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"settings file {file} cannot be read: {error.strerror}; check the path and its mode"
        ) from error
    except ValueError as error:
        raise SettingsError(f"settings file {file}: {error}") from error


def _typed(setting: Setting, text: str) -> object:
    """The text as the setting's type; where it is none, the text itself, which the model will then refuse."""
    try:
        return setting.kind(text) if setting.kind in (int, float) else text
    except ValueError:
        return text


def _complaint(error: ValidationError, model: type[BaseModel], origins: Mapping[str, str]) -> str:
    first = error.errors(include_url=False)[0]
    key = first["loc"][0]
    if first["type"] == "missing":
        setting = next(s for s in settings_of(model) if s.key == key)
        return f"{key} is not set; give {setting.flag}, {setting.variable}, or {key} in the settings file"
    return f"{origins[str(key)]}: {explain(error, model)}"
