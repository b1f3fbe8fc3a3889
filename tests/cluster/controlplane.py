"""A real control plane on loopback: etcd, kube-apiserver, kube-scheduler, kube-controller-manager; nothing emulated.

Users are tokens in a file, as no test is about certificates; RBAC and the Node authorizer are as in production.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.tokens import FixedToken
from tests.cluster.processes import free_ports, running, wait_until
from tests.cluster.programs import Programs, find_programs

NODES = ("node-a", "node-b")
"""Nodes that can come as themselves; others may be in the API all the same."""

_START_S = 90.0
_USERS: Mapping[str, tuple[str, str]] = {
    "admin": ("admin", "system:masters"),
    "scheduler": ("system:kube-scheduler", ""),
    "controller-manager": ("system:kube-controller-manager", ""),
    "nobody": ("nobody", ""),
    **{f"node:{name}": (f"system:node:{name}", "system:nodes") for name in NODES},
}
"""Who may come: our word for them, their Kubernetes name and their group. The Kubernetes name is also the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """A running control plane; everything it writes is below `root`."""

    programs: Programs
    root: Path
    server: str

    @property
    def version(self) -> tuple[int, int, int]:
        """Of Kubernetes."""
        return self.programs.version

    @property
    def ca_file(self) -> Path:
        """The certificates by which the API server is trusted."""
        return self.root / "apiserver" / "apiserver.crt"

    @property
    def endpoint(self) -> Endpoint:
        """The API server as the administrator sees it."""
        return self.endpoint_of("admin")

    @property
    def administrator_token(self) -> str:
        """For requests that are made by hand."""
        return _USERS["admin"][0]

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.kubeconfig_of("admin")

    def endpoint_of(self, user: str) -> Endpoint:
        """The API server as "admin", "node:node-a", "node:node-b" or "nobody" (known, without rights) sees it."""
        return self.with_token(_USERS[user][0])

    def with_token(self, token: str) -> Endpoint:
        """The API server as the owner of the token sees it."""
        return Endpoint(
            server=self.server, token=FixedToken(token), ca_pem=self.ca_file.read_text()
        )

    def kubeconfig_of(self, user: str) -> Path:
        """A kubeconfig file for one of the users of `endpoint_of`, or for a part of the control plane."""
        cluster = {"server": self.server, "certificate-authority": str(self.ca_file)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": user,
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": _USERS[user][0]}}],
            "contexts": [{"name": user, "context": {"cluster": "tests", "user": user}}],
        }
        path = self.root / f"{user.replace(':', '-')}.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path


@contextmanager
def running_control_plane(
    minor: str,
    root: Path,
    *,
    gates: Mapping[str, bool] | None = None,
    runtime_config: Mapping[str, bool] | None = None,
) -> Iterator[ControlPlane]:
    """A control plane of that Kubernetes minor runs while the block does; afterwards no process of it is left.

    `gates` are feature gates of every part, `runtime_config` says which API versions are served besides the usual.
    Raises Failed, with what the failing part printed.
    """
    programs = find_programs(minor)
    switches = [f"--feature-gates={_pairs(gates)}"] if gates else []
    with ExitStack() as stack:
        store = stack.enter_context(_running_etcd(programs, root))
        extra = (
            [*switches, f"--runtime-config={_pairs(runtime_config)}"]
            if runtime_config
            else switches
        )
        server = stack.enter_context(_running_apiserver(programs, root, store, extra))
        plane = ControlPlane(programs=programs, root=root, server=server)
        commands: Mapping[str, Sequence[str | Path]] = {
            "scheduler": [programs.scheduler, "--leader-elect=false", *switches],
            "controller-manager": [programs.controller_manager, *_controllers(root), *switches],
        }
        for user, command in commands.items():
            stack.enter_context(_running_client(plane, user, command))
        yield plane


@contextmanager
def _running_etcd(programs: Programs, root: Path) -> Iterator[str]:
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    flags = {
        "data-dir": root / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",
    }
    log = root / "etcd.log"
    with running([programs.etcd, *_flags(flags)], log) as process:
        wait_until(lambda: _answers(f"{client}/health"), process, log, within_s=_START_S)
        yield client


@contextmanager
def _running_apiserver(
    programs: Programs, root: Path, store: str, extra: Sequence[str]
) -> Iterator[str]:
    _write_users(root)
    _write_signing_key(root)
    port = free_ports(1)[0]
    flags = {
        "etcd-servers": store,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": root / "apiserver",
        "token-auth-file": root / "users.csv",
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "enable-admission-plugins": "NodeRestriction",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": root / "sa.key",
        "service-account-signing-key-file": root / "sa.key",
        "service-cluster-ip-range": "10.0.0.0/24",
        "profiling": "false",
    }
    server, log = f"https://127.0.0.1:{port}", root / "apiserver.log"
    with running([programs.apiserver, *_flags(flags), *extra], log) as process:
        wait_until(lambda: _answers(f"{server}/readyz"), process, log, within_s=_START_S)
        yield server


@contextmanager
def _running_client(
    plane: ControlPlane, user: str, command: Sequence[str | Path]
) -> Iterator[None]:
    """A part of the control plane that is a client of the API server, until it says that it is healthy and beyond."""
    port = free_ports(1)[0]
    flags = {
        "kubeconfig": plane.kubeconfig_of(user),
        "bind-address": "127.0.0.1",
        "secure-port": port,
    }
    log = plane.root / f"{user}.log"
    with running([*command, *_flags(flags)], log) as process:
        healthy = f"https://127.0.0.1:{port}/healthz"
        wait_until(lambda: _answers(healthy), process, log, within_s=_START_S)
        yield


def _controllers(root: Path) -> list[str]:
    """What the controller manager needs to sign tokens of service accounts, and to tell every namespace the CA."""
    flags = {
        "service-account-private-key-file": root / "sa.key",
        "root-ca-file": root / "apiserver" / "apiserver.crt",
        "use-service-account-credentials": "true",
        "leader-elect": "false",
    }
    return _flags(flags)


def _write_users(root: Path) -> None:
    lines = [
        f'{name},{name},{number},"{group}"'
        for number, (name, group) in enumerate(_USERS.values(), start=1)
    ]
    (root / "users.csv").write_text("\n".join(lines))


def _write_signing_key(root: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (root / "sa.key").write_bytes(pem)


def _flags(flags: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def _pairs(switches: Mapping[str, bool] | None) -> str:
    return ",".join(f"{name}={str(on).lower()}" for name, on in (switches or {}).items())


def _answers(url: str) -> bool:
    """Whether the URL is answered with 200; who it is does not matter yet, so no certificate is checked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
