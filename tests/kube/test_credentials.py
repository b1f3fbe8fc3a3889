"""The order in which API servers are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.kube.credentials import Access, find_endpoint
from dra_driver.kube.tokens import TokenFile
from dra_driver.model.errors import SettingsError

KUBECONFIG = """
current-context: one
contexts: [{name: one, context: {cluster: one}}, {name: two, context: {cluster: two}}]
clusters: [{name: one, cluster: {server: 'https://one'}}, {name: two, cluster: {server: 'https://two'}}]
"""
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a kubeconfig, and a service account beside it."""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(KUBECONFIG)
    (tmp_path / "ca.crt").write_text("PEM")
    (tmp_path / "token").write_text("pod-token")
    return tmp_path


def server(access: Access, environ: dict[str, str], home: Path) -> str:
    found = find_endpoint(access, environ={"HOME": str(home), **environ}, service_account=home)
    return found.server


def test_the_order(home: Path) -> None:
    """A named server, a named kubeconfig or context, the pod, the default kubeconfig."""
    config = home / ".kube" / "config"
    everything = Access(server="https://named", kubeconfig=config, context="two")
    assert server(everything, POD, home) == "https://named"
    assert server(Access(kubeconfig=config, context="two"), POD, home) == "https://two"
    assert server(Access(kubeconfig=config), POD, home) == "https://one"
    assert server(Access(context="two"), POD, home) == "https://two"
    assert server(Access(), POD, home) == "https://10.0.0.1:6443"
    assert server(Access(), {}, home) == "https://one"


async def test_in_a_pod(home: Path) -> None:
    """CA and token come from the service account; IPv6 addresses get their brackets."""
    endpoint = find_endpoint(environ={"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account=home)
    assert endpoint.server == "https://[fd00::1]:443"
    assert endpoint.ca_pem == "PEM"
    assert isinstance(endpoint.token, TokenFile)
    assert await endpoint.token.current() == "pod-token"


async def test_a_named_server(home: Path) -> None:
    """Its token and CA come from the files named beside it; a lone URL is fine, too."""
    access = Access(server="https://s", token_file=home / "token", ca_file=home / "ca.crt")
    endpoint = find_endpoint(access, environ={})
    assert endpoint.ca_pem == "PEM"
    assert endpoint.token is not None
    assert await endpoint.token.current() == "pod-token"
    bare = find_endpoint(Access(server="http://127.0.0.1:8080"), environ={})
    assert (bare.token, bare.ca_pem) == (None, None)


def test_the_kubeconfig_variable(home: Path) -> None:
    """$KUBECONFIG names files instead of ~/.kube/config; those that do not exist are passed over."""
    other = home / "other"
    other.write_text(KUBECONFIG.replace("current-context: one", "current-context: two"))
    environ = {"KUBECONFIG": f"{home / 'absent'}:{other}"}
    assert server(Access(), environ, home) == "https://two"


def test_nothing_at_all(tmp_path: Path) -> None:
    """The message says everything that was tried, and what to do."""
    with pytest.raises(SettingsError) as caught:
        find_endpoint(environ={"HOME": str(tmp_path)})
    for word in ("server", "kubeconfig", "KUBERNETES_SERVICE_HOST", str(tmp_path), "name one"):
        assert word in str(caught.value)


def test_files_without_their_server(tmp_path: Path) -> None:
    """A token file that would be ignored is an error instead."""
    with pytest.raises(SettingsError, match="without a server"):
        find_endpoint(Access(token_file=tmp_path / "token"), environ={})


def test_an_unreadable_ca(home: Path) -> None:
    """Named with its path."""
    with pytest.raises(SettingsError, match="absent"):
        find_endpoint(Access(server="https://s", ca_file=home / "absent"), environ={})


@pytest.mark.parametrize("url", ["ftp://x", "api:6443", "https://", "https://u:hunter2@host", ""])
def test_a_server_must_be_a_url(url: str) -> None:
    """Checked before anything connects; credentials in a URL are refused unseen."""
    with pytest.raises(SettingsError) as caught:
        find_endpoint(Access(server=url or "x"), environ={})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "host:6443",
        "http://127.0.0.1:abc",
        "http://exa mple",
        "http://host:99999",
        "https://",
        "ftp://host",
    ],
)
def test_what_can_never_be_reached_is_refused_at_once(home: Path, text: str) -> None:
    """Instead of being tried for ever; the message shows the value and a right one."""
    with pytest.raises(SettingsError, match=r"is not a URL like https://host:6443"):
        find_endpoint(Access(server=text), environ={}, service_account=home)
