"""The package: what is on disk is what ships, under one name, and the light parts stay light."""

import ast
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from erpd_hub import __version__
from erpd_hub.recipe import load_recipe
from erpd_hub.recipe_files import shipped_recipes

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = PROJECT["tool"]["setuptools"]["package-dir"]
DATA_FOLDERS = {"erpd_hub.recipes"}
HEAVY = ("torch", "transformers", "datasets", "gradio", "trl", "matplotlib")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_packages_are_the_folders_on_disk() -> None:
    roots = {"erpd_hub": ROOT / "erpd_hub", **{name: ROOT / folder for name, folder in MAPPED.items()}}
    found = {
        ".".join([name, *path.parent.relative_to(folder).parts])
        for name, folder in roots.items()
        for path in folder.rglob("__init__.py")
    }
    assert sorted(found | DATA_FOLDERS) == sorted(PROJECT["tool"]["setuptools"]["packages"])


def test_every_folder_with_code_is_a_package() -> None:
    for top in ("erpd_hub", *MAPPED.values()):
        folders = {path.parent for path in (ROOT / top).rglob("*.py")}
        assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_nothing_shadows_a_mapped_folder(name: str) -> None:
    assert not (ROOT / Path(*name.split("."))).exists()


def test_versions_agree() -> None:
    assert PROJECT["project"]["version"] == __version__


def test_every_data_file_has_a_shipped_suffix() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for top in ("erpd_hub", *MAPPED.values()):
        for path in (ROOT / top).rglob("*"):
            shipped = path.suffix == ".py" or any(path.match(pattern) for pattern in patterns)
            assert shipped or path.is_dir() or "__pycache__" in path.parts, f"{path} would not be in the wheel"


def test_no_generic_name_outside_the_checkout(tmp_path: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('evaluation', 'spaces', 'model_cards') if u.find_spec(n)])"
    assert run("-c", code, cwd=tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "config",
        "recipe",
        "artifacts",
        "references",
        "stages",
        "model_cards",
        "plotting.figures",
        "spaces",
        "evaluation",
    ],
)
def test_light_modules_import_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = f"import sys, erpd_hub.{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = run("-c", code, cwd=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_losses_and_signals_need_torch_alone(tmp_path: Path) -> None:
    code = (
        "import sys, erpd_hub.signals, erpd_hub.losses, erpd_hub.advantages, erpd_hub.estimators; "
        "print([name for name in ('transformers', 'accelerate', 'datasets', 'trl') if name in sys.modules])"
    )
    done = run("-c", code, cwd=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


_ABOVE = {"stages", "cli", "comparing", "hub", "nodes", "pipeline", "plan", "recipe", "recipe_model", "runner",
          "spaces"}  # fmt: skip
_MATH = {"advantages", "distances", "estimators", "exact_kl", "head", "layout", "logprobs", "losses", "noise",
         "response_batch", "scoring", "signals"}  # fmt: skip


def _imports(path: Path) -> set[str]:
    """First names under `erpd_hub` of what a module imports, in its functions too."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in found if name.startswith("erpd_hub.")}


@pytest.mark.parametrize(
    ("part", "above"),
    [
        *((name, _ABOVE) for name in ("config", "models", "samples", "sampling", "training")),
        *((name, _ABOVE | {"launching", "planning", "sampling", "training"}) for name in sorted(_MATH)),
    ],
)
def test_imports_point_downward(part: str, above: set[str]) -> None:
    folder = ROOT / "erpd_hub" / part
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
        assert _imports(path) & above == set(), path.relative_to(ROOT)


def test_help_answers_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom erpd_hub.cli import main\nsys.argv = ['erpd-hub', '--help']\n"
        f"try:\n    main()\nfinally:\n    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
    assert done.stderr.strip().endswith("[]")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_recipe_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description


def test_the_quick_start_ships() -> None:
    assert (files("erpd_hub.recipes") / "quickstart.yaml").is_file()
