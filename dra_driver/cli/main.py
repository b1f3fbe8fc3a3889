"""`dra`, also installed as `kubectl-dra`: everything about this driver that concerns the whole cluster."""

from __future__ import annotations

import click

from dra_driver.cli.doctor.command import doctor
from dra_driver.cli.drain import drain
from dra_driver.cli.failures import Tool, verbose_option
from dra_driver.cli.get import get
from dra_driver.cli.sandbox import sandbox
from dra_driver.cli.version import version


@click.group(cls=Tool, context_settings={"help_option_names": ["-h", "--help"]})
@verbose_option
def main() -> None:
    """GPUs on Kubernetes by Dynamic Resource Allocation: what there is and who uses it.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.
    """


main.add_command(doctor)
main.add_command(drain)
main.add_command(get)
main.add_command(sandbox)
main.add_command(version)


if __name__ == "__main__":
    main()
