"""README.md and docs/ as data: their blocks of code with the mark before each, the commands in them, and the CLI's own
parser to hold these against.

The mark is an HTML comment on the line before a block, which readers do not see:

    <!-- run -->              as it stands, after the blocks before it on the page, in one folder
    <!-- plan: REASON -->     with --dry-run added; REASON says why it is not run whole
    <!-- tested: FILE -->     by that file, which has each command and its options; what the next one says is so too
    <!-- file: NAME -->       is that file in the page's folder
    <!-- steps of: RECIPE --> steps of a recipe, laid over that one
    <!-- not run: REASON -->  read only: its commands, options, keys and values exist
"""

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import typer.main

from erpd_hub import config as c
from erpd_hub.cli import app
from erpd_hub.cli.evaluate import _words as evaluate_words
from erpd_hub.cli.stages import STAGE_HELP, single_step
from erpd_hub.errors import ConfigError, ErpdError
from erpd_hub.implicit import SIGNAL_KEYS
from erpd_hub.plotting.figures import chosen, formats
from erpd_hub.recipe import build_recipe, load_recipe
from erpd_hub.recipe_files import shipped_recipes

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
MARKS = ("run", "plan", "tested", "file", "steps of", "not run")

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
_MARK = re.compile(r"<!-- *([a-z ]+?)(?:: *(.*?))? *-->\s*$")
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of the parser that Typer brings with it: all that it refuses."""
_SPAN = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str
    mark: str | None
    detail: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """One command of ours, with the variables that stand before it."""

    place: str
    words: tuple[str, ...]
    """Without `erpd-hub`."""


@cache
def blocks() -> tuple[Block, ...]:
    found = []
    for page, path in PAGES.items():
        text = path.read_text()
        for match in _FENCE.finditer(text):
            before = text[: match.start()]
            mark = _MARK.search(before.rstrip("\n").rsplit("\n", 1)[-1])
            kind, detail = (mark[1], mark[2] or "") if mark else (None, "")
            found.append(Block(page, before.count("\n") + 1, match[1], match[2], kind, detail))
    return tuple(found)


def recipe_blocks() -> list[Block]:
    """Whole recipes."""
    return [block for block in blocks() if block.language == "yaml" and re.search("^(steps|rounds):", block.text, re.M)]


def step_blocks() -> list[Block]:
    """Steps to be laid over the recipe that their mark names."""
    return [block for block in blocks() if block.mark == "steps of"]


def prose(page: str) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", PAGES[page].read_text())


def lines_of(block: Block) -> list[list[str]]:
    """The commands of a block as words: continued lines joined, comments left out, `a && b` as two."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                found.append(words)
                words = []
    return found


def split_variables(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """`A=1 B=2 command ...` and `export A=1`: the variables, and the rest."""
    rest = words[1:] if words[0] == "export" else list(words)
    variables = {}
    while rest and re.match(r"[A-Z_0-9]+=", rest[0]):
        name, _, variables[name] = rest.pop(0).partition("=")
    return variables, rest


def block_commands() -> Iterator[Command]:
    for block in blocks():
        if block.language == "bash":
            for words in lines_of(block):
                _, rest = split_variables(words)
                if rest and rest[0] == "erpd-hub":
                    yield Command(block.place, tuple(rest[1:]))


def inline_commands() -> Iterator[Command]:
    """Code in a line of text that begins with `erpd-hub`; placeholders such as `[KEY=VALUE ...]` stay in it."""
    for page in PAGES:
        for span in _SPAN.findall(prose(page)):
            words = span.replace("\\|", " ").replace("|", " ").split()
            if words[:1] == ["erpd-hub"]:
                yield Command(f"{page}: `{span}`", tuple(word.strip("[]") for word in words[1:]))


# --------------------------------------------------------------------------------------------- the CLI


@cache
def every_command() -> dict[str, Any]:
    """Each command and group by its words: `hub push`."""

    def below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path.strip(), command
        for name, sub in getattr(command, "commands", {}).items():
            yield from below(sub, f"{path} {name}")

    return dict(below(typer.main.get_command(app), ""))


def find_command(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The command that these words name, and what follows; `rollout KEY=VALUE` is `rollout make`."""
    known = every_command()
    path: list[str] = []
    while len(words) > len(path) and " ".join([*path, words[len(path)]]) in known:
        path.append(words[len(path)])
    name, rest = " ".join(path), words[len(path) :]
    if rest and hasattr(known[name], "commands"):
        defaults = [sub for sub in ("make", "show") if f"{name} {sub}" in known]
        name = f"{name} {defaults[0]}" if defaults and name else name
    return name, rest


def unknown_words(command: Command) -> list[str]:
    """What of a command the CLI does not have: its name, or options."""
    name, rest = find_command(command.words)
    if not name:
        return [command.words[0]] if command.words and command.words[0].islower() else []
    target = every_command()[name]
    if hasattr(target, "commands"):
        return [word for word in rest[:1] if re.fullmatch("[a-z-]+", word)]
    known = {option for item in target.params for option in (*item.opts, *item.secondary_opts)} | {"--help"}
    if (target.context_settings or {}).get("ignore_unknown_options"):
        known |= _own_options(name)
    named = (re.match(r"-{1,2}[a-z][\w-]*", word) for word in rest)
    return [match[0] for match in named if match and match[0] not in known]


def untested(command: Command, test: Path) -> list[str]:
    """Of a command, its name and long options where a file of tests never has them: the words of the name in a row, in
    one text or among neighbouring texts."""
    name, rest = find_command(command.words)
    words = name.removesuffix(" make").removesuffix(" show").split()
    said = list(_texts(ast.parse(test.read_text())))
    runs = any(texts[at : at + len(words)] == words for texts in said for at in range(len(texts)))
    options = {word.partition("=")[0] for word in rest if word.startswith("--")}
    return [*([] if runs else [name]), *sorted(options - {text for texts in said for text in texts})]


def _texts(tree: ast.AST) -> Iterator[list[str]]:
    """The words of the literal texts in each list, tuple and call of a program; what is no text stands as one."""
    for node in ast.walk(tree):
        parts: Sequence[ast.AST] = [node] if isinstance(node, ast.Constant) else ()
        if isinstance(node, ast.List | ast.Tuple | ast.Call):
            parts = node.args if isinstance(node, ast.Call) else node.elts
        words = [str(part.value).split() if isinstance(part, ast.Constant) else [""] for part in parts]
        yield [word for found in words for word in found]


def refusal(command: Command) -> str:
    """Why the CLI refuses a command before it does anything: an argument too many or missing, a choice or a value that
    it does not have, a key of no stage or recipe. Empty where it does not, and where only doing it would tell."""
    name, rest = find_command(command.words)
    words = ["me/student" if word == "CHECKPOINT" else word for word in rest]
    try:
        context = every_command()[name].make_context(name, words[: words.index(">")] if ">" in words else words)
        _check_values(name, context.params, context.args)
    except typer.Exit:  # --help
        return ""
    except (_UsageError, ErpdError) as error:
        return f"{name}: {error}"
    return ""


def _check_values(name: str, said: dict[str, Any], words: list[str]) -> None:
    """Raises ErpdError: the values do not make a recipe, or figures."""
    stage = name.removesuffix(" make")
    if name == "plot":
        chosen(said["figures"]), formats(said["format"])
    elif stage in STAGE_HELP or stage == "evaluate":
        if stage == "evaluate":
            kind = {"engine.type": said["engine"] or ("server" if said["url"] else None)}
            keys = {
                "benchmarks": "benchmarks",
                "k": "k",
                "engine.urls": "url",
                "judge.model": "judge",
                "judge.url": "judge_url",
            }
            words = evaluate_words(words, kind | {key: said[name] or None for key, name in keys.items()})
        data = single_step(stage, stage, words)
        if stage == "distill" and "signal" not in data["rounds"][0]["steps"][stage]:
            _check_keys(stage, words)  # what signal it is to make depends on rollouts, which only a Hub has
            return
        build_recipe(data | {"run": said["name"], "namespace": said["namespace"]}, name)
    elif said.get("recipe") in shipped_recipes() and name in ("run", "plan"):
        load_recipe(said["recipe"], said["overrides"] or [])


def _check_keys(stage: str, words: Sequence[str]) -> None:
    for word in words:
        key = word.removeprefix("--").partition("=")[0].partition(".")[0]
        if "=" in word and f"--{key.replace('_', '-')}" not in _own_options(stage):
            raise ConfigError(f"{key}: expected a key of {stage}")


def _own_options(name: str) -> set[str]:
    """Options that a command reads by itself: the keys of its stage, or those of a measurement."""
    if name.startswith("bench "):
        source = ROOT / "erpd_hub" / "benchmarks" / f"{name.split()[1]}.py"
        return set(re.findall(r'"(--[\w-]+)"', source.read_text()))
    stage = name.split()[0]
    fields = {
        field
        for config in _configs(c.AnyStep)
        if config.model_fields["stage"].default == stage
        for field in config.model_fields
    }
    fields |= set(SIGNAL_KEYS) if stage == "distill" else set()
    keys = (*fields, *c.Numerics.model_fields, "policy", "seed", "threads")
    return {f"--{key.replace('_', '-')}" for key in keys}


def _configs(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for part in get_args(annotation):
        yield from _configs(part)
