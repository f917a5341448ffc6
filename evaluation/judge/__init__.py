"""The judge: a language model behind the rule, asked only where the rule says no, and measured while it is asked.

`prompt` says what it sees and which replies count, `client` asks it, `journal` keeps what it said and `ledger` what it
cost; `selection` picks the rows, `canaries` are answers made to deceive it, `audit` says how far it can be trusted, and
`check` whether rulings are what the kept replies say. The rule's verdicts and labels stay as they are: a score with the
judge stands beside the score without.
"""

import json
from collections.abc import Mapping
from typing import Any

OPEN_VERDICTS = ("wrong", "ungradable")
"""What of the rule's a judge may mend."""


def judged_label(row: Mapping[str, Any]) -> int | None:
    """A sample's label with the judge: its verdict where it gave one and may, otherwise the rule's.

    An answer that only the rule could not grade is wrong when the judge turns it down: to count the accepted ones alone
    would raise the mean.
    """
    status = ruling_of(row).get("status") if row["verdict"] in OPEN_VERDICTS else None
    if status == "accepted":
        return 1
    label: int | None = 0 if status == "rejected" else row["label"]
    return label


def ruling_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a row's `judge` column; empty where nothing does that can be read, as details may be anybody's."""
    try:
        found = json.loads(row["judge"]) if row["judge"] else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
