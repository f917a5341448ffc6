"""Bounds of what the embedded Hub reads, matches and remembers, without a server."""

import pytest
from huggingface_hub import ModelCardData

from erpd_hub.hub.server.cards import MAX_HEADER_BYTES, CardError, parse_header, read_card, readme_errors
from erpd_hub.hub.server.ignoring import MAX_STEPS, ignore_rule, lfs_rule
from erpd_hub.hub.server.objects import Folder, encode_tree, entries_of, has_ending, lfs_file, regular_file
from erpd_hub.hub.server.remembered import Remembered


def test_yaml_that_takes_long_is_refused_at_once() -> None:
    deep, number = "a: " + "[" * 100_000, "a: 1" + ":59" * 40_000
    for text, reason in (
        (deep, "nested deeper"),
        ("- " * 60_000, "nested deeper"),
        (number, "a number has more"),
        ("a: !!int '1" + ":59" * 40_000 + "'", "tags are not supported"),
        ("a: [" + "[]," * MAX_HEADER_BYTES + "]", "header is longer"),
    ):
        with pytest.raises(CardError, match=reason):
            parse_header(f"---\n{text}\n---\n")


def test_a_card_that_clients_cannot_take_is_refused_and_shown_without_that() -> None:
    """One of them in a listing would break it for everybody."""
    result = "task: {type: t}, dataset: {name: d, type: d}, metrics: [{type: m, value: 1}], source"
    texts = ["!!int ''", '!!float ""', "!!timestamp foo", f'!!float "{"1:" * 999}1"', "!!bool foo", "!!str a"]
    fields = ["self: 1", "ignore_metadata_errors: true", "tags: 5"]
    fields += [f"model-index: [{{name: a, results: [{{{result}: {source}}}]}}]" for source in ("5", "{name: a}", "")]
    for header in (*(f"x: {text}" for text in texts), *fields):
        readme = f"---\nlicense: mit\n{header}\n---\n".encode()
        assert readme_errors(readme)
        card = read_card(readme)
        assert card == ({"license": "mit"} if header in fields else {})
        ModelCardData(**card, ignore_metadata_errors=True)


def test_what_is_remembered_is_bounded() -> None:
    kept = Remembered(10)
    for key in "abab":
        assert kept.get(key, lambda key=key: key * 4) == key * 4
    assert kept.get("a", lambda: "made again") == "aaaa"
    assert kept.get("c", lambda: "cccc") == "cccc"
    assert kept.get("b", lambda: "anew") == "anew"  # the one not asked for longest went


@pytest.mark.parametrize(
    ("gitignore", "ignored", "kept"),
    [
        ("*.log\n!keep.log", ["a.log", "d/a.log"], ["keep.log", "a.txt"]),
        ("/top", ["top", "top/a"], ["d/top"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["a/c"]),
        ("**/x?", ["xy", "d/xy"], ["x", "xyz"]),
        ("build/", ["build/a", "d/build/a"], ["build"]),
        ("\\#a\n\n  ", ["#a"], ["a"]),
    ],
)
def test_gitignore_patterns(gitignore: str, ignored: list[str], kept: list[str]) -> None:
    rule = ignore_rule(gitignore)
    assert [path for path in ignored + kept if rule(path)] == ignored
    assert not ignore_rule("*a" * 200 + "b")("a" * 255)
    assert not ignore_rule("a" * 2000)("a" * 2000), "no path is as long, so nobody needs it compiled"


def test_what_matching_takes_is_known_before() -> None:
    """The longest of the common templates, and 256 files, are far below what is too much; a request that is above it
    is refused (test_too_much_is_refused)."""
    paths = [f"src/package/module_{number}/part/with_a_long_name_{number}.py" for number in range(256)]
    assert ignore_rule("*.pyc\n**/build/**\n/some/[Dd]irectory/*\n" * 120).steps(paths) < MAX_STEPS / 2
    assert ignore_rule("x/**/x/**/y").steps(["x/x/x/x"]) == 11 * 7 * 4
    assert lfs_rule(b"*.bin filter=lfs\n*.txt text\n").steps(["a.bin"]) == 5 * 5


def test_entries_of_a_large_folder_are_found_in_its_text() -> None:
    odd = ['["README.md","', "README.md ]", "x/README.md", 'a"]', "README.mdx", "\u00e9.gguf", '.safetensors","']
    tree = {name: regular_file(name.encode()) for name in odd}
    assert entries_of(encode_tree(tree), ["README.md"]) == {}
    shown = {
        "README.md": regular_file(b"x"),
        ".eval_results": Folder("a" * 40, "b" * 64),
        "m.bin": lfs_file("c" * 64, 5),
    }
    data = encode_tree(tree | shown)
    assert entries_of(data, [*shown, "absent"]) == shown
    assert [has_ending(data, ending) for ending in (".gguf", ".safetensors", ".bin")] == [True, False, True]
