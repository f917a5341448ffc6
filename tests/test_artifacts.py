"""Digest, fingerprint and record: what they depend on and what gives an alteration away."""

from erpd_hub.artifacts import FileRecord, check_payload, digest_files, fingerprint, is_payload, payload_files


def test_the_digest_is_that_of_the_payload_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000.parquet").write_bytes(b"rows")
    before = digest_files(payload_files(tmp_path))
    for name in ("lineage.json", "README.md", "metrics.jsonl", ".gitattributes"):
        (tmp_path / name).write_text("later")
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "x.yaml").write_text("later")
    assert digest_files(payload_files(tmp_path)) == before
    (tmp_path / "data" / "train-00000.parquet").write_bytes(b"Rows")
    assert digest_files(payload_files(tmp_path)) != before
    assert is_payload("data/README.md")


def test_the_digest_depends_on_names_too():
    record = FileRecord(sha256="0" * 64, size=1)
    assert digest_files({"a": record}) != digest_files({"b": record})


def test_the_fingerprint_depends_on_everything_that_goes_in_and_on_no_order():
    def make(**changes):
        base = {"inputs": [("a", "1"), ("b", "2")], "identity": {"x": 1, "y": 2}, "seed": 0}
        return fingerprint("teacher", changes.pop("version", 1), **{**base, **changes})

    assert make() == make(inputs=[("b", "2"), ("a", "1")], identity={"y": 2, "x": 1})
    assert (
        len({make(), make(version=2), make(seed=1), make(identity={"x": 2}), make(inputs=[("a", "2"), ("b", "2")])})
        == 5
    )


def test_check_payload_names_every_difference(tmp_path, finished_record):
    record = finished_record(tmp_path, {"a": b"1", "b": b"2"})
    assert check_payload(tmp_path, record) == []
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").unlink()
    (tmp_path / "c").write_bytes(b"new")
    problems = "\n".join(check_payload(tmp_path, record))
    assert "a: sha256" in problems
    assert "b: missing" in problems
    assert "c: not recorded" in problems
    forged = record.model_copy(update={"seed": 5})
    assert any("fingerprint" in problem for problem in check_payload(tmp_path, forged))
