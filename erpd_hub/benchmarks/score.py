"""The score stage against a bare forward pass of the same model over the same batches, shard about in one run, and its
memory on one dataset and on four of it.

The bare pass is the decoder and, at the response positions alone, the output head as it is: no softmax, no files, the
batches laid out before the clock starts.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from erpd_hub.benchmarks.timing import synchronize
from erpd_hub.columns import ShardReader, row_arrays
from erpd_hub.config import Dtype, ScoreConfig
from erpd_hub.layout import cut_batches
from erpd_hub.logprobs import autocast
from erpd_hub.response_batch import ResponseBatch, make_batch
from erpd_hub.samples import SAMPLE_SCHEMA, shard_path, shard_paths, write_rows
from erpd_hub.scoring import Scorer, score_shard

_PROMPT = 48
"""Tokens of a prompt."""
_MEMORY = """
import resource, sys
from pathlib import Path
from erpd_hub.config import ScoreConfig
from erpd_hub.stage_context import StageContext
from erpd_hub.stages import score
checkpoint, rollouts, out, budget = sys.argv[1:]
config = ScoreConfig(rollouts="a/b", checkpoint="a/c", micro_batch_tokens=int(budget))
Path(out, "work").mkdir(parents=True)
context = StageContext(0, Path(out, "work"))
score.run(config, Path(out), context=context, rollouts=Path(rollouts), checkpoint=Path(checkpoint))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def score_against_forward(
    checkpoint: Path, *, samples: int, mean_length: int, shards: int, budget: int, dtype: Dtype = "float32"
) -> dict[str, Any]:
    """Response tokens a second of both, and their ratio.

    Args:
        samples: In all, of random tokens and of heavy-tailed lengths.
        budget: Tokens of a batch.
    """
    config = ScoreConfig(rollouts="a/b", checkpoint="a/c", dtype=dtype, micro_batch_tokens=budget)
    scorer = Scorer(checkpoint, config)
    seconds = {"score": 0.0, "forward": 0.0}
    tokens = 0
    with tempfile.TemporaryDirectory() as folder:
        rollouts = write_random_rollouts(Path(folder), scorer.model.config.vocab_size, samples, mean_length, shards)
        for index, shard in enumerate(shard_paths(rollouts)):
            batches = list(_batches(scorer, shard))
            if index == 0:  # first calls load kernels
                _forward(scorer, batches[-1:], dtype)
            order = ("score", "forward") if index % 2 else ("forward", "score")
            for name in order:
                started = time.perf_counter()
                if name == "score":
                    score_shard(scorer, shard, Path(folder, "out", shard.name))
                else:
                    _forward(scorer, batches, dtype)
                synchronize(scorer.model.device)
                seconds[name] += time.perf_counter() - started
            tokens += sum(int(batch.response_lengths.sum()) for batch in batches)
    return {
        "response_tokens": tokens,
        "layout": scorer.layout,
        "device": str(scorer.model.device),
        "score_tokens_per_second": round(tokens / seconds["score"], 1),
        "forward_tokens_per_second": round(tokens / seconds["forward"], 1),
        "ratio": round(seconds["forward"] / seconds["score"], 3),
    }


def score_memory(checkpoint: Path, *, samples: int, mean_length: int, shards: int, budget: int) -> dict[str, float]:
    """Peak resident GB of the whole stage, in a process of its own, on a dataset and on one four times as large."""
    vocabulary = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    peaks = {}
    for times in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            rollouts = write_random_rollouts(
                Path(folder) / "in", vocabulary, times * samples, mean_length, times * shards
            )
            arguments = [str(checkpoint), str(rollouts), str(Path(folder) / "out"), str(budget)]
            done = subprocess.run(
                [sys.executable, "-c", _MEMORY, *arguments], capture_output=True, text=True, check=True
            )
            peaks[f"peak_gb_{times}x"] = round(float(done.stdout.split()[-1]), 3)
    return peaks


def write_random_rollouts(folder: Path, vocabulary: int, samples: int, mean_length: int, shards: int) -> Path:
    """Rollouts of random token ids; lengths are exponential, cut at eight times their mean."""
    rng = random.Random(0)
    per_shard = -(-samples // shards)
    for index in range(shards):
        rows = [_row(rng, f"{index}-{number}", vocabulary, mean_length) for number in range(per_shard)]
        write_rows(shard_path(folder, index), rows, SAMPLE_SCHEMA)
    return folder


def _row(rng: random.Random, problem_id: str, vocabulary: int, mean_length: int) -> dict[str, Any]:
    length = 1 + min(int(rng.expovariate(1 / mean_length)), 8 * mean_length)
    ids = rng.choices(range(vocabulary), k=_PROMPT + length)
    return {"problem_id": problem_id, "k": 0, "prompt_ids": ids[:_PROMPT], "response_ids": ids[_PROMPT:]}


def _batches(scorer: Scorer, shard: Path) -> Iterator[ResponseBatch]:
    """The batches that scoring cuts from a shard, ready on the device."""
    for block in ShardReader(shard, ["prompt_ids", "response_ids"]).blocks():
        prompts, responses = row_arrays(block["prompt_ids"]), row_arrays(block["response_ids"])
        lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]  # type: ignore[arg-type]
        for cut in cut_batches(lengths, scorer.config.micro_batch_tokens, scorer.layout):
            taken, drawn = ([torch.from_numpy(ids[i].astype("int64")) for i in cut] for ids in (prompts, responses))  # type: ignore[union-attr]
            yield make_batch(taken, drawn, scorer.model.device, layout=scorer.layout)


@torch.inference_mode()
def _forward(scorer: Scorer, batches: list[ResponseBatch], dtype: Dtype) -> None:
    model = scorer.model
    for batch in batches:
        with autocast(model.device, dtype):
            states = model.base_model(
                input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False
            ).last_hidden_state
            sequences, offsets = batch.mask.nonzero(as_tuple=True)
            places = batch.starts[sequences] + batch.prompt_lengths[sequences] + offsets - 1
            model.get_output_embeddings()(states[batch.rows[sequences], places])
