"""Which API server, and as whom: said on the command line, by a kubeconfig, or by the pod we run in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.kubeconfig import read_kubeconfig
from dra_driver.kube.tokens import TokenFile
from dra_driver.model.errors import SettingsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What somebody asked for; nothing at all means: find out. `token_file` and `ca_file` go with `server`."""

    server: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    kubeconfig: Path | None = None
    context: str | None = None


def find_endpoint(
    access: Access | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Endpoint:
    """The first of: `access.server`, its kubeconfig or context, the pod's service account, the default kubeconfig.

    Raises SettingsError that names what was tried.
    """
    access = access or Access()
    if access.server:
        return _explicit(access, access.server)
    if access.token_file or access.ca_file:
        raise SettingsError("a token file or CA file without a server: name the API server's URL")
    if access.kubeconfig:
        return read_kubeconfig([access.kubeconfig], access.context)
    defaults = _default_kubeconfigs(environ)
    existing = [path for path in defaults if path.is_file()]
    if access.context:
        return read_kubeconfig(existing or defaults, access.context)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster(environ, service_account)
    if existing:
        return read_kubeconfig(existing)
    raise SettingsError(
        "no API server: neither a server nor a kubeconfig was named, KUBERNETES_SERVICE_HOST is not set (we are not in "
        f"a pod), and {', '.join(map(str, defaults))} does not exist; name one of them"
    )


def _explicit(access: Access, server: str) -> Endpoint:
    return Endpoint(
        server=server,
        token=TokenFile(access.token_file) if access.token_file else None,
        ca_pem=_pem(access.ca_file) if access.ca_file else None,
    )


def _in_cluster(environ: Mapping[str, str], service_account: Path) -> Endpoint:
    host = environ["KUBERNETES_SERVICE_HOST"]
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    return Endpoint(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        token=TokenFile(service_account / "token"),
        ca_pem=_pem(service_account / "ca.crt"),
    )


def _default_kubeconfigs(environ: Mapping[str, str]) -> list[Path]:
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return named or [Path(environ.get("HOME", "/root")) / ".kube" / "config"]


def _pem(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"CA file {path} cannot be read ({error}); it must be PEM") from error
