"""What an artifact is: a folder of payload files, and the `lineage.json` that says where it comes from.

* The **digest** is what an artifact contains: sha256 over its sorted payload files.
* The **fingerprint** is what went into it: stage and version, input digests, identity of the config, seed. Running
  the same thing again gives the same fingerprint, which is how the runner knows that it need not.

Commit shas carry time; they are recorded in lineage and are part of neither.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from erpd_hub.errors import ArtifactError

SCHEMA: Literal["erpd-hub/lineage/v1"] = "erpd-hub/lineage/v1"
LINEAGE = "lineage.json"
CARD = "README.md"
TIMES = "metrics.jsonl"


Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A branch or tag names something else tomorrow, and could name the very record that it stands in."""


def _inside(folder: str) -> str:
    if folder and not is_inside(folder):
        raise ValueError(f"expected a folder of the repository, got {folder!r}")
    return folder


def is_inside(path: str) -> bool:
    """Whether a path leads to something in the folder that it starts from."""
    return not set(path.split("/")) & {"", ".", ".."} and "\\" not in path and path.isprintable()


class FileRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int


class OriginRecord(BaseModel):
    """Where an artifact was made, for one that was copied to another Hub: its digest is the same, its commit is not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo_id: str
    revision: str


class InputRecord(BaseModel):
    """One input of an artifact. A local source has no repository: only its digest is recorded, never its path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    kind: str
    digest: str
    repo_type: Literal["model", "dataset"] | None = None
    repo_id: str | None = None
    folder: Annotated[str, AfterValidator(_inside)] = ""
    revision: Commit | None = None
    """The 40-hex commit that was read."""
    upstream: bool = False
    """Read from the upstream Hub because the endpoint lacked it."""
    files: tuple[str, ...] = ()
    """The files of the repository that were read, and whose digest it is; empty, and not written, for all of them."""
    origin: OriginRecord | None = None
    """Where it was read, before this record was copied to another Hub; not written for one that never was."""

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_empty(dump(self), "files", "origin")


class LineageRecord(BaseModel):
    """`lineage.json`: the origin of one artifact. Holds no token, host, user name, local path or time."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["erpd-hub/lineage/v1"] = Field(default=SCHEMA, alias="schema")
    stage: str
    stage_version: int
    kind: str
    run: str
    round: int
    step: str
    """Name of the step in the recipe."""
    saved_step: int | None = None
    """Optimizer step of a training stage's checkpoint."""
    repo_type: Literal["model", "dataset"]
    repo_id: str
    folder: str = ""
    inputs: tuple[InputRecord, ...]
    config: dict[str, Any]
    """The whole resolved config, references included."""
    identity: dict[str, Any]
    """The part of the config that went into the fingerprint."""
    seed: int
    fingerprint: str
    digest: str
    license: str | None = None
    code: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, Any]
    files: dict[str, FileRecord]
    origin: OriginRecord | None = None
    """Where it was made, if it was copied here from another Hub; not written for one that was made here."""

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_empty(dump(self), "origin")

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, sort_keys=True) + "\n"


def _without_empty(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """Without those of the named fields that say nothing, so that what never had them is written as ever."""
    return {name: value for name, value in data.items() if value or name not in names}


def read_lineage(path: Path, *, where: str = "") -> LineageRecord:
    """Parse a `lineage.json`; `where` names it in messages, its folder otherwise.

    Raises:
        ArtifactError: it is missing or not of the schema.
    """
    try:
        return LineageRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path.parent.name}: no {LINEAGE}; the stage that writes it has not finished") from None
    except ValidationError as error:
        first = error.errors()[0]
        said = ": ".join(filter(None, (".".join(str(part) for part in first["loc"]), first["msg"])))
        raise ArtifactError(f"{where or path.parent.name}/{LINEAGE}: {said}; it is no record of this version") from None


def is_payload(path: str) -> bool:
    """Whether a file belongs to the digest: not the record itself, the card, times, results or plots."""
    first = PurePosixPath(path).parts[0]
    return path not in (LINEAGE, CARD, TIMES, ".gitattributes") and first not in (".eval_results", "plots", ".cache")


def hash_file(path: Path) -> FileRecord:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileRecord(sha256=sha256, size=path.stat().st_size)


def payload_files(folder: Path) -> dict[str, FileRecord]:
    """The payload of an artifact folder: posix path to hash and size, sorted."""
    return {name: hash_file(path) for name, path in _files(folder).items() if is_payload(name)}


def foreign_files(folder: Path) -> dict[str, FileRecord]:
    """All files of a folder that is not ours: its README may say which of its files are the data."""
    names = {name: path for name, path in _files(folder).items() if name.split("/")[0] not in (".cache", ".git")}
    return {name: hash_file(path) for name, path in names.items()}


def _files(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def digest_files(files: Mapping[str, FileRecord]) -> str:
    """sha256 over the sorted (path, sha256) of the payload."""
    lines = "".join(f"{name}\0{files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def fingerprint(
    stage: str, version: int, *, inputs: Iterable[tuple[str, str]], identity: Mapping[str, Any], seed: int
) -> str:
    """sha256 of what goes into an artifact; `inputs` are (role, digest) in any order."""
    content = {
        "stage": stage,
        "version": version,
        "inputs": sorted([role, digest] for role, digest in inputs),
        "config": identity,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fingerprint_tag(value: str) -> str:
    """The Hub tag of a finished artifact."""
    return f"fp-{value[:16]}"


def step_tag(value: str, step: int) -> str:
    """The Hub tag of a saved step; `step-N` beside it moves to the newest training of the repository."""
    return f"{fingerprint_tag(value)}-step-{step}"


def check_payload(folder: Path, record: LineageRecord) -> list[str]:
    """Differences between a folder and its record, as messages; empty when every byte is as recorded."""
    found = payload_files(folder)
    problems = [f"{name}: missing" for name in record.files if name not in found]
    problems += [f"{name}: not recorded" for name in found if name not in record.files]
    problems += [
        f"{name}: sha256 {found[name].sha256[:12]}, recorded {expected.sha256[:12]}"
        for name, expected in record.files.items()
        if name in found and found[name] != expected
    ]
    return problems + record_problems(record)


def record_problems(record: LineageRecord) -> list[str]:
    """Whether digest and fingerprint follow from what the record itself says."""
    problems = []
    if digest_files(record.files) != record.digest:
        problems.append("digest: does not follow from the recorded files")
    inputs = [(item.role, item.digest) for item in record.inputs]
    expected = fingerprint(
        record.stage, record.stage_version, inputs=inputs, identity=record.identity, seed=record.seed
    )
    if expected != record.fingerprint:
        problems.append("fingerprint: does not follow from the recorded inputs, config and seed")
    return problems


def write_json(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text)
    temporary.replace(path)
