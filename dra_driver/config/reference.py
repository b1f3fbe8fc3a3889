"""The page on settings, made from their declarations: `python -m dra_driver.config.reference > docs/user/configuration.md`."""

from __future__ import annotations

from dra_driver.config.layers import Setting, settings_of
from dra_driver.config.settings import PluginSettings

_INTRODUCTION = """\
# Settings of the node plugin

<!-- Made by `python -m dra_driver.config.reference`; a test compares. Change dra_driver/config/settings.py instead. -->

`dra-kubelet-plugin run` takes each setting from the last of these layers that has it:

1. the default;
2. the settings file: YAML, its path given by `--config` or `DRA_CONFIG`;
3. the environment variable, unless it is empty;
4. the flag.

`dra-kubelet-plugin config view`, given the same flags and environment, prints what is in force and where each value comes
from; its YAML can be used as a settings file. Unknown keys, keys set twice and values of another type (`"64"` for `64`) are
refused.

| file | flag | environment | values | default | meaning |
|---|---|---|---|---|---|
"""


def render() -> str:
    """The whole page."""
    return _INTRODUCTION + "".join(_row(setting) for setting in settings_of(PluginSettings))


def _row(setting: Setting) -> str:
    values = setting.values.replace("|", "\\|")
    default = "required" if setting.required else _code(setting.default)
    names = " | ".join(f"`{name}`" for name in (setting.key, setting.flag, setting.variable))
    return f"| {names} | {values} | {default} | {setting.description} |\n"


def _code(value: object) -> str:
    return "" if value is None else f"`{value}`"


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201  (it goes into the page)
