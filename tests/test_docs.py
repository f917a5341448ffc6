"""README.md and docs/: every command is run, planned, tested elsewhere, or marked with the reason why not.

A page's blocks marked `run` are run one after the other, as a reader would, in a home that holds a finished run. Two
things are played by something else, since they take minutes or a network:

    quickstart              by tests/micro.yaml, the quick start in seconds; its benchmark addition by addition-1digit
    run FILE.yaml           by FILE.yaml with SMALL laid over it: small numbers, no network
    http://hub.lab:8899     by an embedded Hub with the accounts of the page's accounts.yaml
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from conftest import MICRO
from documents import (
    MARKS,
    PAGES,
    ROOT,
    Block,
    Command,
    block_commands,
    blocks,
    every_command,
    inline_commands,
    lines_of,
    prose,
    recipe_blocks,
    refusal,
    split_variables,
    step_blocks,
    unknown_words,
    untested,
)
from hub_process import running
from rich.text import Text
from typer.testing import CliRunner

from erpd_hub.cli import app
from erpd_hub.hub.tokens import token_variable
from erpd_hub.plan import make_plan
from erpd_hub.planning.preview import Machine, preview
from erpd_hub.plugins import source_hash
from erpd_hub.recipe import build_recipe, read_recipe
from erpd_hub.recipe_files import shipped_recipes

LAB = "http://hub.lab:8899"
SMALL = """
threads: 1
hub: {upstream: null}
scoring: {dtype: float32, noise_samples: 2}
steps:
  prompts: {count: 8, decontaminate: []}
  rollouts: {k: 2, decoding: {max_new_tokens: 16}, engine: {type: transformers, dtype: float32}}
  teacher: {steps: 1, prompts_per_step: 4, save_steps: []}
  student: {steps: 1, prompts_per_step: 4}
  probe: {num_prompts: 2, k: 2, max_new_tokens: 16, engine: {type: transformers, dtype: float32}}
  evaluate: {k: 2, limit: 4, decoding: {max_new_tokens: 16}, engine: {type: transformers, dtype: float32}}
"""
RUN, PLAYED = re.compile(r"(?<=/)quickstart(?=-)|\bquickstart(?=:)|^quickstart$"), "micro"
BENCHMARK = re.compile(r"(?<=/)addition$")
RECIPE_COMMANDS = ("run", "plan", "sweep")
RUNNING = sorted({block.page for block in blocks() if block.mark in ("run", "plan")})


# ------------------------------------------------------------------------------------- what is read


def test_every_block_says_how_it_is_tested() -> None:
    recipes = recipe_blocks()
    for block in blocks():
        if block.language in ("", "text", "mermaid", "bibtex"):
            assert "erpd-hub " not in block.text, f"{block.place}: expected a bash block"
        elif block not in recipes:
            assert block.mark in MARKS, f"{block.place}: no mark before it (see documents.py)"
            assert block.detail or block.mark == "run", f"{block.place}: {block.mark}: what, or why?"
        if block.language == "python":
            compile(block.text, block.place, "exec")
        if block.mark == "tested":
            assert (ROOT / block.detail).is_file(), f"{block.place}: no {block.detail}"


def test_the_file_that_tests_a_block_runs_its_commands() -> None:
    marked = {block.place: ROOT / block.detail for block in blocks() if block.mark == "tested"}
    commands = [command for command in block_commands() if command.place in marked]
    assert {command.place for command in commands} == set(marked), "only blocks with commands of ours"
    wrong = {
        f"{item.place}: {' '.join(item.words)}": no for item in commands if (no := untested(item, marked[item.place]))
    }
    assert wrong == {}
    assert untested(Command("page", ("hub", "serve", "--nosuch")), ROOT / "tests" / "test_hub_accounts.py") == [
        "--nosuch"
    ]
    assert untested(Command("page", ("bench", "tail")), ROOT / "tests" / "test_hub_accounts.py") == ["bench tail"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_goes_on_from_the_quick_start_says_so_first(page: str) -> None:
    text = PAGES[page].read_text()
    uses = [text.index(block.text) for block in blocks() if block.page == page and "local/quickstart-r1-" in block.text]
    shown = re.sub(r"<!--.*?-->", "", text[: min(uses, default=0)])
    assert not uses or "quickstart.md" in shown or page.endswith("/quickstart.md"), (
        "a reader does not have the artifacts"
    )
    file = any("my-problems.jsonl" in block.text for block in blocks() if block.page == page)
    assert not file or '{"problem": "3+4?", "answer": "7"}' in text or "](own-data.md#prompts)" in text, (
        "what is in it?"
    )


@pytest.mark.parametrize("page", PAGES)
def test_code_stands_in_fences(page: str) -> None:
    """Code by indentation would escape the tests."""
    found = re.findall(r"^ {4,}(?:erpd-hub|python3? |pip |hf |[A-Z_]+=\S+ erpd-hub).*$", prose(page), re.M)
    assert found == []


def test_commands_and_options_exist() -> None:
    commands = [*block_commands(), *inline_commands()]
    assert len(commands) > 100
    wrong = {command.place: unknown for command in commands if (unknown := unknown_words(command))}
    assert wrong == {}


def test_no_command_of_a_block_is_refused() -> None:
    """Arguments, choices, keys and values, also of what is not run here."""
    wrong = [f"{command.place}: {why}" for command in block_commands() if (why := refusal(command))]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "why"),
    [("teacher rollouts=me/a policy=me/b steps=2 loss.type=ce los=1", "los: unknown key"),
     ("teacher rollouts=me/a policy=me/b steps=two loss.type=ce", "got 'two'"),
     ("teacher policy=me/b steps=2 loss.type=ce", "rollouts: missing"),
     ("distill rollouts=me/a numerator=me/b stepz=3", "stepz: expected a key of distill"),
     ("evaluate CHECKPOINT -b aime_2025 -k 4 limt=3", "limt: unknown key"),
     ("run quickstart teacher.losss=1", "losss: unknown key"),
     ("run", "recipe"),
     ("plot micro", "output"),
     ("plot micro -o x --format bmp", "'bmp'"),
     ("lineage verify me/a me/b", "unexpected extra argument")],
)  # fmt: skip
def test_a_wrong_command_is_seen_without_running_it(line: str, why: str) -> None:
    assert why in refusal(Command("page", tuple(line.split())))


def test_the_readme_names_every_command() -> None:
    table = (ROOT / "README.md").read_text()
    missing = [
        name for name in every_command() if name and " " not in name and not re.search(rf"`[^`\n]*\b{name}\b", table)
    ]
    assert missing == []


def test_help_shows_what_it_says() -> None:
    """Brackets in a help text are markup unless escaped: lost, or an error."""
    for name, command in every_command().items():
        for text in (command.help, *(getattr(item, "help", None) for item in command.params)):
            assert text is None or Text.from_markup(text).plain == text.replace("\\[", "["), f"{name}: {text}"


def _anchors(path: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = PAGES[page].parent / name if name else PAGES[page]
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in _anchors(path), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_recipes_that_are_named_are_there(page: str) -> None:
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        if re.fullmatch(r"(docs|tests|erpd_hub|evaluation|spaces|model_cards)/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{page}: {span}"
        span = re.sub(r"^tiny-seed-\d+$|-seed-\d+$", "", span)  # a run of a recipe at a seed
        if re.fullmatch(r"(tiny|table\d+|fig\d+|qwen3[\w.]*|nbg4)-[\w.]+(-[\w.]+)*", span):
            assert span in shipped_recipes(), f"{page}: {span}"
    for command in block_commands():
        if command.place.startswith(f"{page}:") and command.words[0] in RECIPE_COMMANDS:
            for name in command.words[1].split("+"):
                assert name in shipped_recipes() or name.endswith(".yaml"), f"{command.place}: {name}"


# --------------------------------------------------------------------------------------- what is planned


@pytest.mark.parametrize("block", recipe_blocks(), ids=lambda block: block.place)
def test_recipes_are_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "page.yaml"
    path.write_text(block.text)
    _plan_has_a_bill(str(path))


@pytest.mark.parametrize("block", step_blocks(), ids=lambda block: block.place)
def test_steps_are_valid(block: Block, tmp_path: Path, monkeypatch) -> None:
    """As part of the recipe that the mark names, in a folder with the page's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    source_hash.cache_clear()  # of another page's file of this name
    for file in (other for other in blocks() if other.page == block.page and other.mark == "file"):
        (tmp_path / file.detail).write_text(file.text)
    path = tmp_path / "page.yaml"
    inside = "".join(f"  {line}\n" for line in block.text.splitlines())
    path.write_text(f"extends: {block.detail}\nsteps:\n{inside}")
    _plan_has_a_bill(str(path))


def _plan_has_a_bill(recipe: str) -> None:
    origin, data = read_recipe(recipe)
    assert preview(make_plan(build_recipe(data, origin)), machine=Machine(gpus=None, gpu=None))


# ----------------------------------------------------------------------------------------- what is run


@pytest.fixture(scope="module")
def home(tmp_path_factory, finished_micro) -> Path:
    """A home with the finished run; what the pages make stays apart from other tests."""
    copy = tmp_path_factory.mktemp("docs") / "home"
    shutil.copytree(finished_micro.home, copy)
    return copy


@pytest.fixture
def lab(request, tmp_path) -> Iterator[dict[str, str]]:
    """The Hub that a page calls http://hub.lab:8899, where the page has accounts for one; what to say for what."""
    page = request.getfixturevalue("page")
    accounts = [block.text for block in blocks() if block.page == page and block.detail == "accounts.yaml"]
    if not accounts:
        yield {}
        return
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "accounts.yaml").write_text(accounts[0])
    with running(tmp_path / "lab", "--accounts", str(tmp_path / "lab" / "accounts.yaml")) as url:
        yield {LAB: url, token_variable(LAB): token_variable(url)}


@pytest.fixture
def folder(tmp_path, home, monkeypatch) -> Path:
    """Where the reader of a page stands: beside a model and problems of their own."""
    path = tmp_path / "reader"
    path.mkdir()
    monkeypatch.setenv("ERPD_HOME", str(home))
    monkeypatch.chdir(path)
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    base = next((home / "cache").glob("*/models--local--micro-r1-base/snapshots/*/model.safetensors")).parent
    shutil.copytree(base, path / "my-model", ignore=shutil.ignore_patterns("lineage.json", "README.md", "metrics*"))
    rows = ({"problem": f"{a}+{b}?", "answer": str(a + b)} for a in range(3, 8) for b in range(2, 7))
    (path / "my-problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "small.yaml").write_text(SMALL)
    parts = (home / "cache").glob("*/datasets--local--micro-r1-rollouts/snapshots/*/data/*.parquet")
    kept = pq.read_table(next(parts)).select(["problem_id", "k", "prompt_ids", "response_ids", "label"]).to_pylist()
    (path / "my-rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return path


@pytest.mark.parametrize("page", RUNNING)
def test_the_commands_of_a_page_run(page: str, folder: Path, lab: dict[str, str], monkeypatch) -> None:
    mine = [block for block in blocks() if block.page == page]
    for block in (block for block in mine if block.mark == "file"):
        (folder / block.detail).write_text(block.text)
    for block in mine:
        for words in lines_of(block) if block.mark in ("run", "plan") else ():
            _run([_played(word, lab) for word in words], block, monkeypatch)


def _played(word: str, lab: dict[str, str]) -> str:
    for said, played in lab.items():
        word = word.replace(said, played)
    return word


def _run(words: list[str], block: Block, monkeypatch) -> None:
    variables, rest = split_variables(words)
    for name, value in variables.items():
        monkeypatch.setenv(name, os.path.expandvars(value))
    if rest[:1] == ["erpd-hub"]:
        _run_ours([*rest[1:], "--dry-run"] if block.mark == "plan" else _small(rest[1:]), block.place)
    elif rest:
        done = subprocess.run(rest, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{block.place}: {rest}\n{done.stdout}\n{done.stderr}"


def _run_ours(words: list[str], place: str) -> None:
    said = f"{place}: erpd-hub {' '.join(words)}"
    first = 2 if words[0] in RECIPE_COMMANDS else 0  # what names a run, not a recipe
    played = [BENCHMARK.sub("addition-1digit", RUN.sub(PLAYED, word)) for word in words[first:]]
    done = CliRunner().invoke(app, [*words[:first], *played])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise AssertionError(said) from done.exception
    assert done.exit_code == 0, f"{said}\n{done.output}"


def _small(words: list[str]) -> list[str]:
    """The command with what plays its recipe."""
    if words[0] in RECIPE_COMMANDS and words[1] == "quickstart":
        return [words[0], str(MICRO), *words[2:]]
    if words[0] == "run" and words[1].endswith(".yaml"):
        return ["run", f"{words[1]}+./small.yaml", *words[2:]]
    return words
