"""Where tokens come from; how they are sent is in test_transport.py."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from dra_driver.kube.kubeconfig import read_kubeconfig
from dra_driver.kube.tokens import FixedToken, PluginToken, TokenFile
from dra_driver.model.errors import Forbidden, Unavailable


async def test_a_token_file_must_be_there_once(tmp_path: Path) -> None:
    """Missing or empty at first: Unavailable, naming the file; later the last token stays good."""
    file = tmp_path / "token"
    source = TokenFile(file)
    with pytest.raises(Unavailable, match=str(file)):
        await source.current()
    for nonsense in (b"\n", b"two words", b"two\nlines", b"\xff\xfe"):
        file.write_bytes(nonsense)
        with pytest.raises(Unavailable, match="holds no token"):
            await source.current()
    file.write_text("t\n")
    assert await source.current() == "t"
    file.write_text("")
    assert await source.current(renew=True) == "t"


def test_no_source_prints_its_token() -> None:
    """A source in a log line or traceback gives nothing away."""
    assert "s3cret" not in repr(FixedToken("s3cret"))


def plugin_kubeconfig(folder: Path, script: str) -> Path:
    """A kubeconfig whose user runs a shell script, which finds how often it ran in `runs`."""
    program = folder / "plugin"
    program.write_text(f"#!/bin/sh\necho x >> {folder}/runs\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(program),
            "interactiveMode": "Never",
        }
    }
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://api.test"}}],
        "users": [{"name": "u", "user": user}],
    }
    file = folder / "config"
    file.write_text(yaml.safe_dump(config))
    return file


def credential(token: str, expires: str) -> str:
    """The script's line that prints a credential."""
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token, "expirationTimestamp": expires},
    }
    return f"echo '{json.dumps(answer)}'"


async def test_an_exec_plugin_gives_the_token(tmp_path: Path) -> None:
    """The plugin runs once while its token is valid, and again when the token is refused."""
    file = plugin_kubeconfig(tmp_path, credential("from-plugin", "2999-01-01T00:00:00Z"))
    source = read_kubeconfig([file]).token
    assert isinstance(source, PluginToken)
    assert [await source.current() for _ in range(3)] == ["from-plugin"] * 3
    assert (tmp_path / "runs").read_text().count("x") == 1
    await source.current(renew=True)
    assert (tmp_path / "runs").read_text().count("x") == 2


async def test_an_exec_plugin_that_fails(tmp_path: Path) -> None:
    """A plugin without a token is Forbidden, and the message says what to run."""
    source = read_kubeconfig([plugin_kubeconfig(tmp_path, "exit 3")]).token
    assert source is not None
    with pytest.raises(Forbidden, match="gave no token; run its command by hand"):
        await source.current()


async def test_a_plugin_whose_kubeconfig_is_gone(tmp_path: Path) -> None:
    """Whatever a plugin or the official client raises is Forbidden, naming file and context."""
    source = PluginToken([tmp_path / "absent"], "c")
    with pytest.raises(Forbidden, match=r"absent, context 'c': the credential plugin failed"):
        await source.current()
