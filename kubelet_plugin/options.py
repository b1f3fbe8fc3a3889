"""The plugin's command-line options, made from the settings' declarations, and what they resolve to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click

from dra_driver.config.layers import Resolved, Setting, resolve, settings_of
from dra_driver.config.settings import PluginSettings


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--config` and a flag for each setting; it is called with `resolved`, what they amount to."""
    settings = settings_of(PluginSettings)

    @wraps(command)
    def resolving(config: Path | None, **given: Any) -> None:
        flags = {setting.attribute: given.pop(setting.attribute) for setting in settings}
        resolved = resolve(PluginSettings, file=config, environment=os.environ, flags=flags)
        command(resolved=resolved, **given)

    for setting in reversed(settings):
        add_flag = click.option(
            setting.flag, setting.attribute, metavar=setting.values, help=_help(setting)
        )
        resolving = add_flag(resolving)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="PATH",
        envvar="DRA_CONFIG",
        help="Settings file (YAML).  [env var: DRA_CONFIG]",
    )(resolving)


def describe(resolved: Resolved[PluginSettings], output: Literal["yaml", "json"]) -> str:
    """The settings in force and their origins; the YAML is a settings file with the origins as comments."""
    values = resolved.settings.model_dump(mode="json", by_alias=True)
    if output == "yaml":
        return "\n".join(
            f"{key}: {json.dumps(value)}  # {resolved.origins[key]}"
            for key, value in values.items()
        )
    document = {
        "apiVersion": "gpu.dra-driver.dev/v1alpha1",
        "kind": "PluginSettings",
        "settings": values,
        "origins": dict(resolved.origins),
    }
    return json.dumps(document, indent=2)


def _help(setting: Setting) -> str:
    default = f"; default: {setting.default}" if setting.default is not None else ""
    required = "; required" if setting.required else ""
    return f"{setting.description}  [env var: {setting.variable}{default}{required}]"
