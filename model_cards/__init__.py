"""Cards: the README.md of every artifact, rendered from its lineage record and from nothing else.

One template per artifact kind, over a common `_base.md.jinja`; `front_matter.py` makes the YAML that the Hub reads and
`text.py` keeps values from becoming markup. A card names repositories by their Hub id and links to them relative to
the endpoint, so that the same card is right on every Hub; it holds no endpoint, local path, host or user name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from erpd_hub.checkpoint_role import weight_roles
from erpd_hub.errors import ArtifactError
from erpd_hub.model_cards import front_matter, text
from erpd_hub.model_cards.pictures import CAPTIONS

if TYPE_CHECKING:
    from huggingface_hub.repocard_data import CardData

KINDS = ("checkpoint", "prompts", "rollouts", "logprobs", "critic", "signal", "probe", "details", "gate")
"""Artifact kinds, each with its template; the leaderboard is no artifact and has one too."""

_CONFIG = "The command, {}, and the whole config of this step, with every default and override in place:"
_RECIPE = {
    (False, False): "with a recipe that ships with erpd-hub",
    (False, True): "with its author's own recipe file",
    (True, False): "which takes no recipe",
    (True, True): "which takes no recipe",
}
"""By (a single stage, a file)."""

Record = Mapping[str, Any]
"""A lineage record (`erpd-hub/lineage/v1`) as its JSON has it."""


def render(record: Record, *, recipe: str = "", graph: str = "", pictures: Iterable[str] = ()) -> str:
    """The card of one artifact.

    Args:
        recipe: What `erpd-hub run` was given (a shipped name or a file name).
        graph: Where it comes from, drawn as text (`lineage_views.card_graph`).
        pictures: Of those in `pictures.CAPTIONS` the ones that the repository holds.
    """
    return render_repo_card([record], recipe=recipe, graph=graph, pictures=pictures)


def render_repo_card(
    records: Sequence[Record], *, recipe: str = "", graph: str = "", pictures: Iterable[str] = ()
) -> str:
    """The one card of a repository whose folders are artifacts of one kind, such as details; arguments as `render`'s.

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
    template = _environment().get_template(f"{first['kind']}.md.jinja")
    body = template.render(
        record=first,
        records=records,
        steps=list(dict.fromkeys(f"r{record['round']}/{record['step']}" for record in records)),
        graph=graph,
        inputs=_inputs(records),
        recipes=_recipes(records, recipe),
        made=_made(records),
        results=[_flatten(record["metrics"]) for record in records],
        benchmarks=_by_benchmark(records),
        judged=any(record["metrics"].get("judge") for record in records),
        pictures={name: CAPTIONS[name] for name in pictures},
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
    body = _environment().get_template("leaderboard.md.jinja").render(repo_id=repo_id)
    return f"---\n{front_matter.dump_leaderboard(repo_id)}---\n\n{body.strip()}\n"


def recipe_of(card: str) -> str:
    """What a card says its artifact was made from, as `render` takes it; empty where it says nothing of the kind."""
    found = re.search(r"^erpd-hub run ([\w./-]{1,200}) --until \S+$", card, re.MULTILINE)
    return found[1] if found else ""


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


def _environment() -> Environment:
    folder = files("erpd_hub.model_cards")
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,  # together with `finalize`: every value is escaped for Markdown unless a filter marked it safe
        finalize=text.plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": text.code, "fenced": text.fenced, "link": text.link, "number": text.number}
    environment.filters |= {"percent": text.percent, "interval": text.interval, "limits": text.limits}
    environment.filters |= {"yaml": text.yaml_block, "words": text.words}
    return environment


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


def _recipes(records: Iterable[Record], recipe: str) -> list[dict[str, Any]]:
    """Command and config of the records, each config once, with the folders that came from it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    records = list(records)
    for record in records:
        step = record["step"] if record["round"] == 1 else f"r{record['round']}/{record['step']}"
        by_itself = recipe.startswith("erpd-hub ")  # a single stage, which has no recipe
        name = recipe or f"{record['run']}.yaml"
        command = recipe if by_itself else f"erpd-hub run {name} --until {step}"
        # The folder says which checkpoint it is of, so equal settings are shown once.
        named = ("checkpoints",) if record["kind"] in ("details", "probe") and len(records) > 1 else ()
        kept = {name: value for name, value in record["config"].items() if name not in named}
        config = text.yaml_block(text.public(kept))
        said = _CONFIG.format(_RECIPE[by_itself, name.endswith((".yaml", ".yml"))])
        entry = found.setdefault((command, config), {"command": command, "config": config, "said": said, "folders": []})
        entry["folders"].append(record["folder"])
    return list(found.values())


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
