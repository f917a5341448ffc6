"""The extension of a sampling step, which lets what ended by its length go on, as a node of a plan."""

from collections.abc import Container
from dataclasses import replace

from erpd_hub import config as c
from erpd_hub.config.sampling import check_extension
from erpd_hub.errors import ConfigError
from erpd_hub.meaning import extension_suffix
from erpd_hub.nodes import Edge, Node


def extended(plain: Node, config: c.RolloutConfig | c.EvaluateConfig, taken: Container[str]) -> Node:
    """The node beside a sampling step without its `extend_to`, with it.

    Args:
        taken: Names of the round's steps.

    Raises:
        ConfigError: its name is taken, or the limit is not one to extend to.
    """
    assert config.extend_to is not None
    where, suffix = f"r{plain.round}/{plain.step}", extension_suffix(config)
    if f"{plain.step}{suffix}" in taken:
        raise ConfigError(f"{where}.extend_to: its extension is named {plain.step}{suffix}, and so is a step")
    try:
        check_extension(config.extend_to, config.decoding, config.engine)
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from None
    return replace(
        plain,
        name=plain.name + suffix,
        config=config,
        inputs=(*plain.inputs, Edge("extended", (plain.stage.kind,), plain.name)),
        repo_id=plain.repo_id if plain.folder else plain.repo_id + suffix,
        folder=plain.folder and plain.folder + suffix,
    )
