"""Cards: the README.md of every artifact, rendered from its lineage record, those above it and nothing else.

One template per artifact kind, over a common `_base.md.jinja`; `front_matter.py` makes the YAML that the Hub reads
and `text.py` keeps values from becoming markup. A card names repositories by their Hub id and links to them relative to
the endpoint, so that the same card is right on every Hub; it holds no endpoint, local path, host or user name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from erpd_hub.checkpoint_role import weight_roles
from erpd_hub.errors import ArtifactError
from erpd_hub.lineage_views import Above
from erpd_hub.model_cards import front_matter, snippets, text
from erpd_hub.model_cards.pictures import CAPTIONS
from erpd_hub.model_cards.templates import template
from erpd_hub.public import is_command, public

if TYPE_CHECKING:
    from huggingface_hub.repocard_data import CardData

KINDS = ("checkpoint", "prompts", "rollouts", "logprobs", "critic", "signal", "probe", "details", "gate")
"""Artifact kinds, each with its template; the leaderboard is no artifact and has one too."""

_HOW = "## How it was made"
"""The heading under which the template puts the command."""
_CONFIG = "The command, {}, and the whole config of this step, with every default and override in place:"
_NO_COMMAND = "The recipe below is the whole config of this step, with every default and override in place:"
"""Where the command is not known, or not for others: one that makes something else would be worse than none."""

NOTHING_ABOVE = Above()
Record = Mapping[str, Any]
"""A lineage record (`erpd-hub/lineage/v1`) as its JSON has it."""


def render(
    record: Record,
    *,
    command: str = "",
    above: Above = NOTHING_ABOVE,
    pictures: Iterable[str] = (),
    left_out: Iterable[str] = (),
) -> str:
    """The card of one artifact.

    Args:
        command: The words after `erpd-hub` that made it (`Recipe.command`); empty where they are not known.
        above: Where it comes from and how it is asked (`lineage_views.card_above`).
        pictures: Of those in `pictures.CAPTIONS` the ones that the repository holds.
        left_out: Those that could not be drawn.
    """
    return render_repo_card([record], command=command, above=above, pictures=pictures, left_out=left_out)


def render_repo_card(
    records: Sequence[Record],
    *,
    command: str | Mapping[str, str] = "",
    above: Above = NOTHING_ABOVE,
    pictures: Iterable[str] = (),
    left_out: Iterable[str] = (),
) -> str:
    """The one card of a repository whose folders are artifacts of one kind, such as details; arguments as `render`'s,
    `command` for all or by folder.

    Raises:
        ArtifactError: no record, an unknown kind, or records of several repositories.
    """
    if not records:
        raise ArtifactError("card: expected at least one lineage record, got none")
    records = sorted(records, key=lambda record: record["folder"])
    first = records[0]
    if len({(record["repo_id"], record["kind"]) for record in records}) > 1:
        raise ArtifactError(f"{first['repo_id']}: expected records of one repository and kind")
    if first["kind"] not in KINDS:
        raise ArtifactError(f"{first['repo_id']}: expected an artifact of kind {', '.join(KINDS)}, got {first['kind']}")
    body = template(first["kind"]).render(
        record=first,
        records=records,
        steps=list(dict.fromkeys(f"r{record['round']}/{record['step']}" for record in records)),
        graph=above.graph,
        asked=above.asked,
        snippets=snippets,
        licences=front_matter.licences(records),
        inputs=_inputs(records),
        recipes=_recipes(records, command),
        made=_made(records),
        results=[_flatten(record["metrics"]) for record in records],
        benchmarks=_by_benchmark(records),
        judged=any(record["metrics"].get("judge") for record in records),
        pictures={name: CAPTIONS[name] for name in pictures},
        left_out=list(left_out),
        start=next(
            (item for role in weight_roles(first["metrics"]) for item in first["inputs"] if item["role"] == role), None
        ),
        tag=_tag,
        config_name=front_matter.config_name,
        remote_code=any(record["config"].get("trust_remote_code") for record in records),
    )
    return f"---\n{front_matter.dump(records)}---\n\n{body.strip()}\n"


def render_leaderboard(repo_id: str) -> str:
    """The card of a leaderboard: it has no lineage record, its rows name the details they were computed from."""
    body = template("leaderboard").render(repo_id=repo_id)
    return f"---\n{front_matter.dump_leaderboard(repo_id)}---\n\n{body.strip()}\n"


def command_of(card: str) -> str:
    """The command of the card of one artifact as `render` takes it; empty where it has none, or something that is no
    command alone."""
    return commands_of(card).get("", "")


def commands_of(card: str) -> dict[str, str]:
    """The commands of a card by folder, "" without folders; see `command_of`."""
    made = card.partition(f"\n{_HOW}\n")[2].partition("\n## ")[0]
    entries = re.findall(r"^(?:(`.+`):\n\n)?```bash\nerpd-hub (.{1,4000}?)(?: --until \S+)?\n```$", made, re.MULTILINE)
    named = [(re.findall("`([^`]+)`", folders) or [""], command) for folders, command in entries if is_command(command)]
    return {folder: command for folders, command in named for folder in folders}


def validate(card: str, repo_type: str) -> "CardData":
    """Parse a card the way the Hub's client does, without asking the Hub.

    Raises:
        ArtifactError: the front matter is missing or is not what the client accepts.
    """
    from huggingface_hub import DatasetCard, ModelCard, SpaceCard

    parsers = {"model": ModelCard, "dataset": DatasetCard, "space": SpaceCard}
    try:
        data = parsers[repo_type](card).data
    except Exception as error:
        raise ArtifactError(f"card: front matter does not parse: {error}") from error
    if not data.to_dict():
        raise ArtifactError("card: no front matter")
    return data


def _by_benchmark(records: Iterable[Record]) -> list[Record]:
    """One record for each benchmark, version and state of its problems."""
    found = {
        tuple(record["metrics"].get(name) for name in ("benchmark", "benchmark_version", "problems_sha256")): record
        for record in records
    }
    return list(found.values())


def _tag(record: Record) -> str:
    """The tag under which a record's commit is found."""
    saved_step = record["saved_step"]
    finished = f"fp-{record['fingerprint'][:16]}"
    return finished if saved_step is None else f"{finished}-step-{saved_step}"


def _inputs(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Inputs of the records, each once, with the folders that were made of it."""
    found: list[dict[str, Any]] = []
    for record in records:
        for item in record["inputs"]:
            entry = next((one for one in found if one["item"] == item), None)
            if entry is None:
                found.append(entry := {"item": item, "folders": []})
            entry["folders"].append(record["folder"])
    return found


def _recipes(records: Iterable[Record], commands: str | Mapping[str, str]) -> list[dict[str, Any]]:
    """Command and config of the records, each config once, with the folders that came from it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    records = list(records)
    for record in records:
        step = record["step"] if record["round"] == 1 else f"r{record['round']}/{record['step']}"
        command = commands if isinstance(commands, str) else commands.get(record["folder"], "")
        until = f" --until {quote(step)}" if command.startswith("run ") else ""
        whole = f"erpd-hub {command}{until}" if command else ""
        # The folder says which checkpoint it is of, so equal settings are shown once.
        named = ("checkpoints",) if record["kind"] in ("details", "probe") and len(records) > 1 else ()
        kept = {name: value for name, value in record["config"].items() if name not in named}
        config = text.yaml_block(public(kept))
        entry = found.setdefault((whole, config), {"command": whole, "config": config, "folders": []})
        entry["said"] = _said(command)
        entry["folders"].append(record["folder"])
    return list(found.values())


def _said(command: str) -> str:
    """What introduces the command and the config."""
    if not command:
        return _NO_COMMAND
    name, recipe, *_ = command.split()
    if name != "run":
        return _CONFIG.format("which takes no recipe")
    own = any(part.endswith((".yaml", ".yml")) for part in recipe.strip("'").split("+"))
    file = "with its author's own recipe file, which is not in this repository"
    return _CONFIG.format(file if own else "with a recipe that ships with erpd-hub")


def _made(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Seed, code and environment of the records, each once, with the folders that they made."""
    found: list[dict[str, Any]] = []
    for record in records:
        how = {name: record[name] for name in ("seed", "code", "environment")}
        entry = next((one for one in found if how.items() <= one.items()), None)
        if entry is None:
            found.append(entry := {**how, "folders": []})
        entry["folders"].append(record["folder"])
    return found


def _flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested metrics under dotted names; lists are left out of the table."""
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list | tuple):
            flat[f"{prefix}{name}"] = value
    return flat
