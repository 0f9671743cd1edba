"""`workbench doctor`: is this machine, and this installation, fit for the work?"""

from __future__ import annotations

import click

from workbench.cli.common import json_option, say_json
from workbench.doctor import examine, printed


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check machine, terminal and installation.

    GPU, attention with a self-test, settings, workspace, and foreign packages that shadow ours. The exit code is 1 when
    something is broken.
    """
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            for row in printed(finding):
                click.echo(row)
    if as_json:
        say_json([finding._asdict() for finding in findings])
    broken = sum(finding.status == "broken" for finding in findings)
    if broken and not as_json:
        click.echo(f"{broken} {'thing is' if broken == 1 else 'things are'} broken.")
    ctx.exit(1 if broken else 0)
