from pathlib import Path

from dra_driver.config.layers import settings_of
from dra_driver.config.reference import render
from dra_driver.config.settings import PluginSettings

PAGE = Path(__file__).parents[2] / "docs/user/configuration.md"


def test_every_setting_is_described() -> None:
    """Help and documentation come from the declarations, so each has a sentence."""
    assert all(setting.description.endswith(".") for setting in settings_of(PluginSettings))


def test_defaults_are_values_that_a_user_might_have_given() -> None:
    """Pydantic does not check defaults; here they are checked."""
    settings = PluginSettings(node_name="node-a")
    assert PluginSettings.model_validate(settings.model_dump(by_alias=True)) == settings


def test_documentation_is_current() -> None:
    """docs/user/configuration.md is what `python -m dra_driver.config.reference` prints."""
    assert PAGE.read_text() == render()
