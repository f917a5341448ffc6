"""Every row of a leaderboard recomputed from its details, downloaded afresh at the commit that the row names.

What is compared is the whole row: figures from the samples, KL and entropy from the probe's own file, everything else
from the lineage. A score that was typed in, and a sample that was changed, both show.
"""

import json
from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.artifacts import CARD, LINEAGE, LineageRecord, check_payload, fingerprint_tag, is_inside, read_lineage
from erpd_hub.errors import ArtifactError
from erpd_hub.hub.client import Hub
from erpd_hub.lineage import Place, tree_problems
from erpd_hub.results.founded import sample_problems
from erpd_hub.results.origin import decision_on, evaluation_of, origin_of, record_of
from erpd_hub.results.published import odd_row
from erpd_hub.results.rows import PROBE, Probe, Row, row_of

_TOLERANCE = 1e-9
"""Relative: sums of thousands of labels in another version of Python may differ in their last digits."""
_LARGEST = 16 * 2**30
"""Bytes of the details behind a row: 400 problems with 32 samples of 80,000 tokens are a fifth."""
_LARGEST_RECORD = 2**24
MISSING = "<no such column>"


class RowFinding(NamedTuple):
    """What verification says of one row; no problems means it follows from its samples."""

    row: str
    problems: tuple[str, ...]


def verify_rows(hub: Hub, rows: Mapping[str, list[Row]]) -> Iterator[RowFinding]:
    """One finding for each row, by file.

    Args:
        rows: As published, by the file they are in.
    """
    seen: dict[tuple[Any, ...], str] = {}
    for name, published in rows.items():
        for row in published:
            label = f"{name}: {row.get('checkpoint')} on {row.get('benchmark')}"
            key = (str(row.get("details_repo")), str(row.get("details_folder")))
            twice = (f"the details of {seen[key]} a second time",) if key in seen else ()
            seen.setdefault(key, label)
            yield RowFinding(label, (*twice, *row_problems(hub, row)))


def row_problems(hub: Hub, row: Row) -> list[str]:
    """Differences between a published row and what its samples say; empty when it is right."""
    if problem := odd_row(row):
        return [problem]
    try:
        made, problems = _made_again(hub, row)
    except Exception as error:  # whatever somebody has put behind a row: it is that row's problem alone
        return [f"{_where(row)}: {_one_line(error)}"]
    return problems + [
        f"{column}: {_shown(row.get(column, MISSING))} in the row, {_shown(value)} from its samples and lineage"
        for column, value in made.items()
        if not same(row.get(column, None if value is None else MISSING), value)
    ]


def same(published: Any, computed: Any) -> bool:
    """Whether two cells are equal, numbers up to rounding."""
    if isinstance(computed, list) and isinstance(published, list):
        return len(computed) == len(published) and all(map(same, published, computed))
    if isinstance(computed, bool) or isinstance(published, bool):
        return published is computed
    if isinstance(computed, int | float) and isinstance(published, int | float):
        return isclose(published, computed, rel_tol=_TOLERANCE, abs_tol=1e-12)
    return type(published) is type(computed) and bool(published == computed)


def _made_again(hub: Hub, row: Row) -> tuple[Row, list[str]]:
    """The row as its artifacts give it, and what is wrong with those."""
    place = Place("dataset", row["details_repo"], row["details_revision"], row["details_folder"])
    _check_size(hub, place)
    with hub.fresh_download(place.repo_type, place.repo_id, place.revision, place.folder) as root:
        record, problems = _checked(hub, place, root)
        problems += _tag_problems(hub, place, record)
        found = sample_problems(root / place.folder, record, evaluation_of(hub, record))
        problems += [f"{place}: {problem}" for problem in found]
        problems += _input_problems(hub, record)
        probe, found = _probe(hub, row)
        selection = bool(row.get("selection")) or _decided(hub, record)
        made = row_of(hub, record, place.revision, root / place.folder, selection=selection, probe=probe)
    if probe is not None and not _probed_same_checkpoint(hub, row, made):
        found.append("probe: of another checkpoint")
    return made, problems + found


def _check_size(hub: Hub, place: Place) -> None:
    """What comes before a download: it is one folder of an artifact that was made there, and no larger than such are.

    Raises:
        ArtifactError: it is not.
    """
    if not is_inside(place.folder):
        raise ArtifactError(f"{place.folder!r}: expected a folder of the repository")
    tree = hub.tree(place.repo_type, place.repo_id, place.revision)
    sizes = {name: entry.size for name, entry in tree.items() if name.startswith(f"{place.folder}/") or name == CARD}
    if sum(sizes.values()) > _LARGEST or sizes.get(f"{place.folder}/{LINEAGE}", 0) > _LARGEST_RECORD:
        raise ArtifactError(f"{place}: expected at most {_LARGEST} bytes of details, got {sum(sizes.values())}")
    record = hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    if record is None:
        raise ArtifactError(f"{place}: no {LINEAGE} there")
    if (record.repo_id, record.folder) != (place.repo_id, place.folder):
        raise ArtifactError(f"{place}: expected an artifact of this folder, got {record.repo_id}/{record.folder}")


def _checked(hub: Hub, place: Place, root: Path) -> tuple[LineageRecord, list[str]]:
    """The record of a fresh download and what is not as it or the Hub's tree says."""
    folder = root / place.folder
    record = read_lineage(folder / LINEAGE)
    problems = tree_problems(hub, place, root) + check_payload(folder, record)
    return record, [f"{place}: {problem}" for problem in problems]


def _tag_problems(hub: Hub, place: Place, record: LineageRecord) -> list[str]:
    """A finished artifact carries its tag, on a commit that holds the same: samples, and record to the last word, as
    its metrics are in neither digest nor fingerprint."""
    tag = fingerprint_tag(record.fingerprint)
    tagged = hub.tags(place.repo_type, place.repo_id).get(tag)
    there = hub.lineage(place.repo_type, place.repo_id, tagged, place.folder) if tagged else None
    if there == record:  # equal details in another folder move the tag
        return []
    if tagged is None:
        return [f"{place}: the tag {tag} is missing"]
    other = "samples" if there is None or there.digest != record.digest else "words in its record"
    return [f"{place}: the tag {tag} is on {tagged[:10]}, which has other {other}"]


def _input_problems(hub: Hub, record: LineageRecord) -> list[str]:
    """Whether the repositories that the details name hold what they were made of; a fingerprint covers digests only."""
    evaluation = evaluation_of(hub, record)
    named = [*record.inputs, *(evaluation.inputs if evaluation is not record else ())]
    problems = []
    for item in named:
        above = record_of(hub, item) if item.role in ("details", "checkpoints") else None
        if above is not None and above.digest != item.digest:
            problems.append(f"{item.role}: {item.repo_id}@{str(item.revision)[:10]} is another one than was evaluated")
    return problems


def _decided(hub: Hub, record: LineageRecord) -> bool:
    """Whether the mark has to be there. The run may know more than the lineage, so a mark that is there stands."""
    origin = origin_of(hub, record)
    return origin is not None and decision_on(hub, origin.item, str(record.metrics.get("benchmark"))) is not None


def _probe(hub: Hub, row: Row) -> tuple[Probe | None, list[str]]:
    """KL and entropy from the probe's own file, past every cache; None where the row names no probe."""
    if not row.get("probe_repo"):
        return None, []
    place = Place("dataset", row["probe_repo"], row["probe_revision"], row["probe_folder"])
    _check_size(hub, place)
    with hub.fresh_download(place.repo_type, place.repo_id, place.revision, place.folder) as root:
        record, problems = _checked(hub, place, root)
        problems += _tag_problems(hub, place, record)
        metrics = json.loads((root / place.folder / PROBE).read_bytes())
    return Probe(place.repo_id, place.folder, place.revision, metrics), problems


def _probed_same_checkpoint(hub: Hub, row: Row, made: Row) -> bool:
    record = hub.lineage("dataset", row["probe_repo"], row["probe_revision"], row["probe_folder"])
    digests = {item.digest for item in record.inputs if item.role == "checkpoints"} if record else set()
    return made["checkpoint_digest"] in digests


def _where(row: Row) -> str:
    revision = str(row.get("details_revision"))[:10]
    return f"{row.get('details_repo')}/{row.get('details_folder')}@{revision}"


def _shown(value: Any) -> str:
    return value if value == MISSING else json.dumps(value, default=str)


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
