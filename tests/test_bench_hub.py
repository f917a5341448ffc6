"""`bench hub`: every figure it promises, from a Hub and a file that are small."""

import json

from conftest import cli


def test_the_report_has_every_figure_and_leaves_nothing_behind(tmp_path) -> None:
    arguments = ("--megabytes", "1", "--repeats", "2", "--commits", "3", "--resolves", "3")
    report = json.loads(cli("bench", "hub", *arguments, "--json", home=tmp_path / "home").stdout)
    assert set(report["seconds"]) == {"cp", "cp_fsync", "sha256", "push", "pull"}
    assert all(value > 0 for value in report["seconds"].values())
    assert report["cpu_seconds"].keys() == report["seconds"].keys()
    for name, ratio in report["ratios"].items():
        low, high = report["ratio_ranges"][name]
        assert 0 < low <= ratio <= high
    assert report["commits_per_second"] > 0
    assert 0 < report["cached_resolve_ms"]["median"] <= report["cached_resolve_ms"]["p90"]
    assert not list((tmp_path / "home").glob("bench-hub-*"))
