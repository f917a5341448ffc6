"""An embedded Hub that SIGKILLs itself at a named moment: `python dying_server.py MOMENT ARGUMENT...`

MOMENT is MODULE:FUNCTION:before or MODULE:FUNCTION:after: a call of one of the server's own functions (or methods, as
Class.method), before it does its work or after.
"""

import importlib
import os
import signal
import sys

from erpd_hub.hub.server import __main__ as server


def arm(moment: str) -> None:
    module, path, when = moment.split(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def deadly(*arguments, **options):
        if when == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.exit(server.main(sys.argv[2:]))
