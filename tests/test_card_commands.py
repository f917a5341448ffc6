"""The commands in cards: what made an artifact, or none; and nothing that a shell would read more in."""

import re
import shlex

import pytest
from conftest import MICRO
from test_cards import a_dataset, a_record

from erpd_hub import model_cards
from erpd_hub.cli.stages import single_command
from erpd_hub.comparing.sweep import make_sweep
from erpd_hub.public import public_command, run_command
from erpd_hub.recipe import load_recipe, read_recipe


@pytest.mark.parametrize(
    "command",
    ["run quickstart", "run mine.yaml+gpu.yaml", "run table1+nbg4-3b seed=3 run=q3 'teacher.loss={type: ce}'",
     "teacher rollouts=local/a steps=2 --name own", "rollout import format=jsonl --name x", ""],
)  # fmt: skip
def test_the_command_of_a_card_is_read_back_from_it(command: str) -> None:
    """Copied or rendered again, a card says the same command."""
    card = model_cards.render(a_record(step="o'clock"), command=command)
    assert model_cards.command_of(card) == command
    if not command:
        assert "```bash\n" not in card.split("## How it was made")[1].split("## Results")[0]
        assert "The recipe below is the whole config" in card
    folders = [a_dataset("details", folder=f"{name}/toy", step=name) for name in ("a", "b", "c")]
    said = {"a/toy": command, "c/toy": "evaluate me/x k=2"} if command else {}
    assert model_cards.commands_of(model_cards.render_repo_card(folders, command=said)) == said


@pytest.mark.parametrize("command", ["run x; curl evil", "run $(evil)", "run x `evil`", "teacher", "run x\nevil"])
def test_no_command_is_taken_from_a_card_that_a_shell_would_read_more_in(command: str) -> None:
    card = model_cards.render(a_record(), command="run quickstart").replace("run quickstart", command)
    assert model_cards.command_of(card) == ""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [(["seed=3", "run=q3"], "run quickstart seed=3 run=q3"),
     (["teacher.loss={type: ce}"], "run quickstart 'teacher.loss={type: ce}'"),
     (["hub.endpoint=http://hub.lab:8899"], "run quickstart"),
     (["base.type=import", "base.source=/home/me/model", "teacher=null"], "")],
)  # fmt: skip
def test_a_recipes_command_has_its_overrides_or_is_none(overrides: list[str], said: str) -> None:
    """Without what names this machine it would make another run."""
    assert run_command("quickstart", overrides) == said


def test_commands_tell_no_folders() -> None:
    assert run_command("quickstart+/home/me/gpu.yaml", []) == "run quickstart+gpu.yaml"
    assert public_command("base", ["--source", "my-model"]) == ""
    assert public_command("teacher", ["policy=./my-model"]) == ""
    assert public_command("rollout", ["engine.urls=[http://gpu7:8000]"]) == ""
    assert public_command("rollout", ["judge.model=http://gpu7"]) == ""
    assert load_recipe("quickstart", ["seed=3"]).command == "run quickstart seed=3"
    assert single_command("base", ["type=tiny"], "m", "me", None) == "base type=tiny --name m --namespace me"


@pytest.mark.parametrize("kind", ["details", "rollouts"])
def test_a_shell_reads_no_more_in_a_card_than_our_command(kind: str) -> None:
    """A record of others may lie in a repository whose card is rendered here."""
    record = a_dataset(
        kind, repo_id="me/x; evil", folder="a $(evil)", step="s `evil`", metrics={"avg": 0.5, "benchmark": "b"}
    )
    card = model_cards.render(record, command="run quickstart")
    lines = [line for block in re.findall(r"(?s)```bash\n(.*?)\n```", card) for line in block.splitlines()]
    assert len(lines) >= 2
    assert [shlex.join(shlex.split(line)) for line in lines] == lines


def test_the_points_of_a_sweep_name_no_command() -> None:
    """Its recipe alone would make another run."""
    origin, data = read_recipe(str(MICRO))
    swept = make_sweep(origin, data, [()], seeds=[3, 4])
    assert [plan.recipe.command for plan in (swept.plan, *(point.plan for point in swept.points))] == ["", "", ""]
