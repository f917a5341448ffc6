"""The `vllm` engine against a real vLLM and real weights; `make test-vllm` runs it in vLLM's own environment."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import context, save_policy
from vllm_env import smollm2

from erpd_hub.config import Decoding, PromptFormat, TransformersEngine, VLLMEngine
from erpd_hub.errors import StageError
from erpd_hub.models import load_model, load_tokenizer
from erpd_hub.prompts import Problem
from erpd_hub.samples import read_rows
from erpd_hub.sampling import plan
from erpd_hub.sampling.collect import collect
from erpd_hub.sampling.engine import Request
from erpd_hub.sampling.engines import open_engine
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.sampler import draw_batches
from erpd_hub.sampling.transformers_engine import LocalEngine

pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

CONFIG = VLLMEngine(type="vllm", dtype="float32", enforce_eager=True, max_num_seqs=8)
FEW_SHOT = PromptFormat(
    template="3 + 8 = 11\n45 + 38 = 83\n{problem} =", chat=False, stop=("\n",), extract="first-line"
)
CHAT = PromptFormat()
PROBLEMS = [Problem(text, "addition", text, answer) for text, answer in (("2 + 3", "5"), ("7 + 9", "16"))]
QUESTIONS = [Problem(text, "chat", text, "5") for text in ("What is 2+3?", "Say hello.", "Name a colour.")]
_SAME = 1e-3
"""Difference of the two largest logits below which two correct implementations may choose differently."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return smollm2(tmp_path_factory.mktemp("smollm2") / "checkpoint")


@pytest.fixture(scope="module")
def local(checkpoint):
    torch.set_num_threads(1)
    return LocalEngine(load_model(checkpoint), load_tokenizer(checkpoint))


@pytest.fixture(scope="module")
def engine(checkpoint, local):
    opened = open_vllm(checkpoint)
    yield opened
    if not opened.closed:
        opened.close()


def open_vllm(checkpoint):
    """The engine as stages open it; closing is left to the fixture, except where a test is about it."""
    scratch = checkpoint.parent
    opened = open_engine(CONFIG, checkpoint, load_tokenizer(checkpoint), longest=256, needs_ids=True, scratch=scratch)
    return KeptOpen(opened)


class KeptOpen:
    """One engine for all tests: starting one takes long."""

    reproducible = False
    unseeded = False
    closed = False

    def __init__(self, engine):
        self.engine = engine
        self.asked = 0

    def generate(self, requests, decoding, stop):
        self.asked += len(requests)
        return self.engine.generate(requests, decoding, stop)

    def close(self):
        pass

    def end(self):
        self.closed = True
        self.engine.close()


def make_job(folder, tokenizer, decoding, *, problems=PROBLEMS, format=FEW_SHOT, k=3, earlier=None):
    prompts = plan.render_prompts(problems, format, tokenizer)
    draws = plan.all_draws(prompts, problems[0].source, k, 0)
    return Job(draws, problems[0].source, decoding, format, earlier, folder / "out", context(folder))


def requests_of(problems, format, tokenizer, seeds=(1,)):
    prompts = plan.render_prompts(problems, format, tokenizer)
    return [Request(prompt.prompt_ids, seed) for prompt in prompts for seed in seeds]


def generate(engine, asked, decoding, stop=()):
    found = dict(engine.generate(asked, decoding, stop))
    return [found[index] for index in range(len(asked))]


@torch.inference_mode()
def safe_length(model, prompt_ids, response_ids):
    """Tokens of a greedy response before the first at which two implementations may part."""
    logits = model(torch.tensor([[*prompt_ids, *response_ids]])).logits[0, len(prompt_ids) - 1 : -1].float()
    top = logits.topk(2).values
    close = (top[:, 0] - top[:, 1] < _SAME).nonzero()
    return int(close[0]) if len(close) else len(response_ids)


@pytest.mark.parametrize(("problems", "format"), [(QUESTIONS, CHAT), (PROBLEMS, FEW_SHOT)], ids=["chat", "few-shot"])
def test_greedy_tokens_are_those_of_the_transformers_engine(engine, local, problems, format):
    """With the same end: at an end-of-turn token, at a stop string, or at the limit."""
    asked = requests_of(problems, format, local.tokenizer)
    decoding = Decoding(temperature=0, max_new_tokens=32)
    expected, found = (generate(one, asked, decoding, format.stop) for one in (local, engine))
    whole = 0
    for request, one, other in zip(asked, expected, found, strict=True):
        safe = safe_length(local.model, request.prompt_ids, one.response_ids)
        assert other.response_ids[:safe] == one.response_ids[:safe]
        assert other.logprobs[:safe] == pytest.approx(one.logprobs[:safe], abs=1e-3)
        if safe == len(one.response_ids):
            assert (other.response_ids, other.finish_reason, other.text) == (
                one.response_ids, one.finish_reason, one.text
            )  # fmt: skip
            whole += one.finish_reason == "stop"
    assert whole  # some did end by themselves


def test_records_have_the_same_fields_of_the_same_kind(tmp_path, engine, local):
    decoding = Decoding(temperature=0.8, top_p=0.95, max_new_tokens=8)
    collect(make_job(tmp_path / "vllm", local.tokenizer, decoding), lambda: engine)
    job = make_job(tmp_path / "local", local.tokenizer, decoding)
    draw_batches(job, lambda: LocalEngine(local.model, local.tokenizer), TransformersEngine().batch_tokens)
    rows, others = (list(read_rows(tmp_path / name / "out")) for name in ("vllm", "local"))
    fixed = ("benchmark", "problem_id", "k", "seed", "prompt_ids", "gold")
    assert [[row[name] for name in fixed] for row in rows] == [[row[name] for name in fixed] for row in others]
    for row in rows:
        assert {name: type(value) for name, value in row.items() if value is not None}.items() >= {
            "response_ids": list, "sampler_logprobs": list, "finish_reason": str, "text": str, "verdict": str
        }.items()  # fmt: skip
        assert len(row["sampler_logprobs"]) == len(row["response_ids"]) <= 8
        assert "\n" not in row["text"]
        if row["finish_reason"] == "stop":
            last = row["response_ids"][-1]
            assert last in local.stop_ids or "\n" in local.tokenizer.decode([last])


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_logprobs_are_of_the_distribution_that_was_drawn_from(engine, local, penalty):
    """After presence penalty, temperature, top-k and top-p: those of our own sampler for the same tokens."""
    from erpd_hub.sampling.transformers_engine import sampler_logprobs

    decoding = Decoding(temperature=0.7, top_p=0.9, top_k=50, max_new_tokens=6, presence_penalty=penalty)
    asked = requests_of(QUESTIONS[:1], CHAT, local.tokenizer, seeds=(1, 2))
    for request, completion in zip(asked, generate(engine, asked, decoding), strict=True):
        ids = torch.tensor([[*request.prompt_ids, *completion.response_ids]])
        with torch.inference_mode():
            logits = local.model(ids).logits[0, len(request.prompt_ids) - 1 : -1].float()
            for place in range(len(logits)):
                logits[place, torch.tensor(completion.response_ids[:place], dtype=torch.long).unique()] -= penalty
        expected = sampler_logprobs(logits, decoding).gather(-1, ids[0, len(request.prompt_ids) :, None])[:, 0]
        assert completion.logprobs == pytest.approx(expected.tolist(), abs=2e-3)


def test_a_seed_gives_its_sample_in_company_and_others_give_others(engine, local):
    """In fp32 on a CPU; vLLM promises it nowhere (its batches change the rounding of logits)."""
    decoding = Decoding(max_new_tokens=12)
    asked = requests_of(QUESTIONS[:2], CHAT, local.tokenizer, seeds=(11, 12, 13))
    together = generate(engine, asked, decoding)
    alone = [generate(engine, [request], decoding)[0] for request in asked[:3]]
    assert [one.response_ids for one in alone] == [one.response_ids for one in together[:3]]
    assert len({tuple(one.response_ids) for one in together}) > 3


def test_an_extension_continues_the_tokens_it_is_given(tmp_path, engine, local):
    short = make_job(tmp_path / "short", local.tokenizer, Decoding(max_new_tokens=3), problems=QUESTIONS, format=CHAT)
    collect(short, lambda: engine)
    earlier = plan.Earlier(tmp_path / "short" / "out", max_new_tokens=3)
    longer = make_job(
        tmp_path / "long", local.tokenizer, Decoding(max_new_tokens=7), problems=QUESTIONS, format=CHAT, earlier=earlier
    )
    collect(longer, lambda: engine)
    before = {row["seed"]: row for row in read_rows(short.out)}
    for row in read_rows(longer.out):
        assert row["response_ids"][:3] == before[row["seed"]]["response_ids"][:3]
        assert len(row["sampler_logprobs"]) == len(row["response_ids"]) <= 7
        assert row["text"] == local.tokenizer.decode(row["response_ids"], skip_special_tokens=True)


def test_an_adapter_is_handed_to_vllm_merged_into_its_base(tmp_path):
    peft = pytest.importorskip("peft")
    from erpd_hub.sampling.vllm_engine import _merged

    base = save_policy(tmp_path / "adapter" / "base")
    model = peft.get_peft_model(
        load_model(base), peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    model.save_pretrained(tmp_path / "adapter")
    tokenizer = load_tokenizer(base)
    tokenizer.save_pretrained(tmp_path / "adapter")
    merged = _merged(tmp_path / "adapter", tokenizer, "float32", tmp_path / "scratch")
    expected, found = load_model(tmp_path / "adapter").state_dict(), load_model(merged).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert any(not torch.equal(found[name], tensor) for name, tensor in load_model(base).state_dict().items())
    assert _merged(base, tokenizer, "float32", tmp_path / "scratch") is None


DYING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_vllm import Decoding, collect, load_tokenizer, make_job, open_vllm

def main():
    checkpoint = Path(sys.argv[2])
    engine = open_vllm(checkpoint)
    plain = engine.generate
    def generate(*arguments):
        for place, pair in enumerate(plain(*arguments)):
            if place == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield pair
    engine.generate = generate
    collect(make_job(Path(sys.argv[3]), load_tokenizer(checkpoint), Decoding(max_new_tokens=8)), lambda: engine)

if __name__ == "__main__":
    main()
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path, checkpoint, engine, local):
    """Nothing is drawn twice, all is there, and the kill leaves no process of the engine behind."""
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(checkpoint), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, text=True)
    _, stderr = process.communicate()  # returns when the last process that holds stderr has ended
    assert process.returncode == -signal.SIGKILL, stderr[-3000:]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    before = engine.asked
    collect(make_job(tmp_path, local.tokenizer, Decoding(max_new_tokens=8)), lambda: engine)
    assert engine.asked - before == 3
    rows = list(read_rows(tmp_path / "out"))
    assert sorted((row["problem_id"], row["k"]) for row in rows) == [
        (p.problem_id, k) for p in PROBLEMS for k in range(3)
    ]


def test_a_stop_closes_the_engine_and_keeps_what_is_finished(tmp_path, engine, local):
    """The last test: it ends the shared engine."""

    class Stopping(KeptOpen):
        def generate(self, requests, decoding, stop):
            for place, pair in enumerate(engine.generate(requests, decoding, stop)):
                if place == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield pair

        def close(self):
            engine.end()

    job = make_job(tmp_path, local.tokenizer, Decoding(max_new_tokens=8))
    with pytest.raises(StageError, match=r"stopped by a signal with 4 samples to go, 2 kept; run it again"):
        collect(job, lambda: Stopping(engine.engine))
    assert engine.closed
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
