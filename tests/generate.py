"""`python -m tests.generate` writes the gRPC code of every .proto file; `--check` fails where it differs from what is committed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
SOURCES = "dra_driver/wire/*/*.proto"
GENERATED = "dra_driver/wire/*/*_pb2*.py*"


def compile_protos(target: Path) -> None:
    """Compile all sources below `target`, in the folders they have here.

    The folders matter: all files are called api.proto, and protobuf refuses two of one path in a process.
    """
    plugins = (
        f"--plugin={tool}={_tool(tool)}" for tool in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    )
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python")]
    stubs = [f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")]
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(SOURCES))
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I."]
    subprocess.run([*protoc, *plugins, *outputs, *stubs, *sources], cwd=ROOT, check=True)


def stale_files(fresh: Path) -> list[str]:
    """Generated files, relative to the root, that are missing, differ or are left over."""
    names = {str(path.relative_to(root)) for root in (ROOT, fresh) for path in root.glob(GENERATED)}
    return sorted(name for name in names if _text(ROOT / name) != _text(fresh / name))


@click.command()
@click.option(
    "--check", is_flag=True, help="Change nothing; exit 1 if the committed code is stale."
)
def main(*, check: bool) -> None:
    """Generate the gRPC code from dra_driver/wire/**/*.proto."""
    if not check:
        compile_protos(ROOT)
        return
    with tempfile.TemporaryDirectory() as fresh:
        compile_protos(Path(fresh))
        if stale := stale_files(Path(fresh)):
            raise click.ClickException(f"stale: {', '.join(stale)}; run `make generate`")


def _tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    main()
