"""Options that several commands share."""

from typing import Annotated

import typer

Endpoint = Annotated[str, typer.Option(help="Hub endpoint: local (the embedded Hub) or a URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan; make and push nothing.")]
