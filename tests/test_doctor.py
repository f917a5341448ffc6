"""`doctor`: what it finds here, what it says of what is broken, and a real push and pull against the embedded Hub."""

import json
from importlib.metadata import version

from conftest import cli
from hub_process import running
from moving_hubs import accounts
from packaging.requirements import Requirement

from erpd_hub.doctor import diagnose
from erpd_hub.doctor.machine import check_home
from erpd_hub.doctor.packages import package
from erpd_hub.home import home
from erpd_hub.hub.connecting import connect
from erpd_hub.hub.tokens import token_variable


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


def test_a_hub_is_asked_as_whom_it_is_reached_and_one_without_accounts_needs_no_token():
    checks = _by_name(diagnose(connect("local").api.endpoint, live=True, size=0.001))
    assert checks["Hub"]["state"] == "ok"
    assert "is reached as local" in checks["Hub"]["found"]
    assert checks["live"]["state"] == "ok"


def test_a_hub_with_accounts_is_reached_by_its_own_token_and_without_one_is_told_how(tmp_path, monkeypatch):
    with running(tmp_path, "--accounts", str(accounts(tmp_path, "alice", "token-of-alice"))) as url:
        refused = _by_name(diagnose(url, live=True))
        assert refused["Hub"]["state"] == "broken"
        assert f"set {token_variable(url)} to a token of it" in refused["Hub"]["found"]
        assert "live" not in refused
        monkeypatch.setenv(token_variable(url), "token-of-alice")
        assert "is reached as alice" in _by_name(diagnose(url))["Hub"]["found"]


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
