"""Whether the samples of a problem differ: a server that ignores seeds draws one sample K times."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LONG = 1000
"""Characters from which two draws at a temperature above 0 are not equal by chance [I]; short answers often are."""

logger = logging.getLogger(__name__)


class Repeats(NamedTuple):
    samples: int
    """That are there: errors are none."""
    duplicates: int
    """Samples whose text another of their problem has before them."""
    long_duplicates: int
    """Those of them that are no accident."""
    all_alike: bool
    """Every problem with several samples has one text only."""

    def suspicious(self, temperature: float) -> bool:
        """Whether seeds seem to be ignored; at temperature 0 equal samples are what was asked for."""
        return temperature > 0 and (self.all_alike or self.long_duplicates > 0)


def count_repeats(rows: Iterable[Mapping[str, Any]]) -> Repeats:
    """Count equal texts among the samples of each problem; texts are kept as hashes."""
    texts: dict[str, list[bytes]] = defaultdict(list)
    samples = duplicates = long_duplicates = 0
    for row in rows:
        if row["finish_reason"] == "error":
            continue
        digest = hashlib.sha256(str(row["text"]).encode("utf-8", "surrogatepass")).digest()
        again = digest in texts[row["problem_id"]]
        samples, duplicates = samples + 1, duplicates + again
        long_duplicates += again and len(row["text"]) >= LONG
        texts[row["problem_id"]].append(digest)
    several = [found for found in texts.values() if len(found) > 1]
    all_alike = bool(several) and all(len(set(found)) == 1 for found in several)
    return Repeats(samples, duplicates, long_duplicates, all_alike)


def report_repeats(repeats: Repeats, name: str, temperature: float) -> None:
    """Say what they mean."""
    share = f"{name}: {repeats.duplicates} of {repeats.samples} samples repeat another of their problem"
    if repeats.suspicious(temperature):
        logger.warning("%s: whatever draws them ignores seeds, so they are fewer samples than they seem", share)
    elif repeats.duplicates and temperature == 0:
        logger.info("%s, as they should at temperature 0: more than one a problem tells nothing new", share)
