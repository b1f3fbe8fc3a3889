import re
from pathlib import Path

import pytest
from pydantic import ValidationError

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


@pytest.mark.parametrize("address", ["off", "127.0.0.1:8080", "[::1]:0", "fd00::7:8080"])
def test_addresses_to_listen_at(address: str) -> None:
    """As people write them, and as the chart makes them from a pod's IP."""
    settings = PluginSettings(node_name="node-a", metrics_address=address)
    assert settings.metrics_address == address


@pytest.mark.parametrize("address", ["", "on", ":8080", "8080", "127.0.0.1:http", "h:65536"])
def test_addresses_that_nobody_can_listen_at(address: str) -> None:
    """All addresses at once are no accident's to take: a host has to be named."""
    with pytest.raises(ValidationError, match=r"write it like 127.0.0.1:8080, or off"):
        PluginSettings(node_name="node-a", metrics_address=address)


def test_compute_instances_are_named_as_nvidia_names_them() -> None:
    """Several with commas, for boards of several kinds."""
    named = "1c.3g.40gb,2c.4g.20gb,1c.2g.48gb+gfx,1c.2g.48gb-me"
    assert PluginSettings(node_name="n", mig_compute_instances=named).mig_compute_instances == named


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("3g.40gb", "names '3g.40gb', which is no profile of MIG compute instances"),
        ("1c.3g.40gb, 1c.3g.20gb", "names ' 1c.3g.20gb'"),
        ("1c.3g.40gb,", "names ''"),
        ("3c.7g.80gb", "names '3c.7g.80gb'"),
        ("2c.2g.20gb", "which is all of a 2g partition"),
    ],
)
def test_what_names_no_part_of_a_partition_is_refused(named: str, words: str) -> None:
    """With the name and what to write instead."""
    with pytest.raises(ValidationError, match=re.escape(words)):
        PluginSettings(node_name="n", mig_compute_instances=named)
