"""`doctor`: what it finds here, what it says of what is broken, and a real push and pull against the embedded Hub."""

import json
from importlib.metadata import version

from conftest import cli
from packaging.requirements import Requirement

from erpd_hub.doctor import diagnose
from erpd_hub.doctor.machine import check_home
from erpd_hub.doctor.packages import package
from erpd_hub.home import home
from erpd_hub.hub.connecting import connect


def _by_name(report):
    return {check["name"]: check for check in report["checks"]}


def test_everything_is_named_and_the_live_probe_leaves_nothing_behind():
    report = diagnose(live=True, size=0.003)
    checks = _by_name(report)
    assert report["ok"]
    assert checks["torch (train)"]["state"] == "ok"
    assert {"python", "GPUs", "CPU", "ERPD_HOME", "loopback port", "Hub", "live", "kernels fla"} <= checks.keys()
    assert "the same bytes" in checks["live"]["found"]
    assert checks["live clean-up"]["state"] == "ok"
    hub = connect("local")
    assert [repo.id for repo in hub.api.list_models(author="local")] == []
    assert not list(home().glob("doctor-*"))
    assert all(check["remedy"] for check in report["checks"] if check["state"] != "ok")


def test_a_hub_out_of_reach_is_broken_and_no_token_is_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("ERPD_HUB_TOKEN", "hf_secretsecret")
    done = cli("doctor", "--endpoint", "http://127.0.0.1:9", "--json", home=tmp_path / "home", expect=1)
    report = json.loads(done.stdout)
    assert not report["ok"]
    assert _by_name(report)["Hub"]["state"] == "broken"
    assert "secret" not in done.stdout + done.stderr
    monkeypatch.delenv("ERPD_HUB_TOKEN")
    assert "no token" in _by_name(diagnose("http://127.0.0.1:9"))["Hub"]["found"]


def test_a_home_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "file" / "home"))
    checks = list(check_home())
    assert [(check.name, check.state) for check in checks] == [("ERPD_HOME", "broken")]
    assert "set ERPD_HOME" in checks[0].remedy


def test_a_dependency_is_held_against_its_pin():
    here = version("pydantic")
    exact, newer = (package(Requirement(f"pydantic{pin}"), "") for pin in (f"=={here}", f">{here}"))
    assert (exact.state, exact.found) == ("ok", f"{here} (=={here})")
    assert (newer.state, newer.found) == ("broken", f"{here}, expected >{here}")
    core, extra = (package(Requirement("no-such-package>=1"), name) for name in ("", "vllm"))
    assert (core.state, extra.name, extra.state) == ("broken", "no-such-package (vllm)", "note")
    assert "pip install 'erpd-hub[vllm]' into an environment of its own" in extra.remedy
