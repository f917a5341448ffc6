"""The YAML at the top of a card: what the Hub itself understands of an artifact's origin."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from erpd_hub.checkpoint_role import weight_roles
from erpd_hub.evaluation.leaderboard import hub_features
from erpd_hub.model_cards.licences import licence_fields
from erpd_hub.model_cards.text import yaml_block

Record = Mapping[str, Any]


def dump(records: Sequence[Record]) -> str:
    """Front matter of a repository's card, without the `---` lines."""
    data = _model(records[0]) if records[0]["repo_type"] == "model" else _dataset(records)
    data = licence_fields(licences(records)) | data
    return yaml_block({name: value for name, value in data.items() if value})


def dump_leaderboard(repo_id: str) -> str:
    """Front matter of a leaderboard's card."""
    data_files = [{"split": "train", "path": "data/*.parquet"}]
    return yaml_block(
        {
            "pretty_name": PurePosixPath(repo_id).name,
            "tags": ["erpd", "erpd-leaderboard"],
            "configs": [{"config_name": "default", "data_files": data_files}],
            "dataset_info": {"features": hub_features()},
        }
    )


def config_name(folder: str) -> str:
    """Name under which `load_dataset(repo, name)` finds a folder; `/` is not allowed in it."""
    return folder.replace("/", "--") or "default"


def _model(record: Record) -> dict[str, Any]:
    adapter = "adapter_config.json" in record["files"]
    roles = weight_roles(record["metrics"])
    base = _unique(item["repo_id"] for role in roles for item in record["inputs"] if item["role"] == role)
    return {
        "base_model": base[0] if base else None,
        "base_model_relation": ("adapter" if adapter else "finetune") if base else None,
        "datasets": _repositories([record], "dataset"),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "token-classification" if record["kind"] == "critic" else "text-generation",
        "tags": _tags([record]),
    }


def _dataset(records: Sequence[Record]) -> dict[str, Any]:
    return {
        "pretty_name": PurePosixPath(records[0]["repo_id"]).name,
        "task_categories": ["text-generation"],
        "source_datasets": _repositories(records, "dataset"),
        "tags": _tags(records),
        "configs": [config for record in records for config in _configs(record)],
    }


def _configs(record: Record) -> list[dict[str, Any]]:
    """One viewer config for a record's `data/*.parquet`; none when it has no such file."""
    paths = [PurePosixPath(name) for name in record["files"]]
    if not any(path.match("data/*.parquet") for path in paths):
        return []
    prefix = f"{record['folder']}/" if record["folder"] else ""
    data_files = [{"split": "train", "path": f"{prefix}data/*.parquet"}]
    return [{"config_name": config_name(record["folder"]), "data_files": data_files}]


def _tags(records: Sequence[Record]) -> list[str]:
    stages = _unique(f"erpd-stage:{record['stage']}" for record in records)
    return ["erpd", *stages, *_unique(f"erpd-run:{record['run']}" for record in records)]


def _repositories(records: Sequence[Record], repo_type: str) -> list[str]:
    items = (item for record in records for item in record["inputs"] if item["repo_type"] == repo_type)
    own = {record["repo_id"] for record in records}
    return [repo_id for repo_id in _unique(item["repo_id"] for item in items) if repo_id not in own]


def licences(records: Sequence[Record]) -> list[str]:
    """Of the records, and of the problems that details are about."""
    inherited = (part for record in records for part in str(record["license"] or "").split(" AND "))
    return _unique([*inherited, *(record["metrics"].get("licence") for record in records)])


def _unique(values: Iterable[str | None]) -> list[str]:
    """Values that are there, each once, in order."""
    return list(dict.fromkeys(value for value in values if value))
