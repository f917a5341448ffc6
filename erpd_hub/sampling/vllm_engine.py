"""vLLM in process: every sample a request of its own with its own seed, all in flight at once.

The K samples of a prompt stand together and the prefix cache is on, so a prompt is computed once. Token ids go
in and out; text is decoded here, as for every engine. This is the only module that imports vLLM.

A seed gives a request its own generator, yet logits depend on the company a request has in a batch, so a sample drawn
again may differ: what is promised is that each sample is drawn from the right distribution, once.
"""

import gc
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from erpd_hub.config import Decoding, Dtype, VLLMEngine
from erpd_hub.errors import require_extra
from erpd_hub.samples import FinishReason
from erpd_hub.sampling.engine import Completion, Request, request_seed
from erpd_hub.sampling.stopping import StopRule

os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout is for what was asked for
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# The engine's core in a process of its own outlives a killed parent (seen with vLLM 0.32) and keeps the GPU's memory
# from the run that resumes; the workers of tensor parallelism notice when this process is gone.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")

try:
    from vllm import SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
    from vllm.engine.arg_utils import EngineArgs
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine
except ModuleNotFoundError as error:
    raise require_extra("vllm", "engine vllm") from error

_CPU_MEMORY = 0.2
"""Share of a machine's memory for a CPU engine: `gpu_memory_utilization` means the whole machine's there."""
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class InProcessEngine:
    """One vLLM engine on the devices that this process sees."""

    reproducible = False
    unseeded = False

    def __init__(
        self,
        config: VLLMEngine,
        checkpoint: Path,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: frozenset[int],
        *,
        dtype: Dtype,
        longest: int,
        scratch: Path,
    ) -> None:
        """Load the checkpoint (an adapter merged into its base, in `scratch`); see `engines.open_engine`."""
        self.tokenizer, self.stop_ids = tokenizer, stop_ids
        self._merged = _merged(checkpoint, tokenizer, dtype, scratch)
        arguments = _arguments(config, self._merged or checkpoint, dtype, longest)
        # As which kind of user: vLLM's defaults for the size of its batches depend on it, and those of LLM are largest.
        self.llm = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, stop: Sequence[str]
    ) -> Iterator[tuple[int, Completion]]:
        """See `Engine`."""
        rule = StopRule(self.tokenizer, stop)
        for index, request in enumerate(requests):
            self.submit(index, request, decoding, stop)
        while self.llm.has_unfinished_requests():
            for output in self.llm.step():
                if output.finished:
                    index = int(output.request_id)
                    yield index, _completion(requests[index], output.outputs[0], rule)

    def submit(self, index: int, request: Request, decoding: Decoding, stop: Sequence[str]) -> None:
        """Put one request into vLLM's queue; it comes out of `llm.step()` under its index."""
        prompt = tokens_input([*request.prompt_ids, *request.response_ids])
        self.llm.add_request(str(index), prompt, self.params(request, decoding, stop))

    def params(self, request: Request, decoding: Decoding, stop: Sequence[str]) -> SamplingParams:
        """How one request is sampled."""
        return SamplingParams(
            n=1,
            seed=request_seed(request),
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            presence_penalty=decoding.presence_penalty,
            max_tokens=request.limit(decoding) - len(request.response_ids),
            stop=list(stop),
            stop_token_ids=sorted(self.stop_ids),
            logprobs=0,
            flat_logprobs=True,
            detokenize=bool(stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def close(self) -> None:
        """Give back the devices' memory, end vLLM's processes, and drop merged weights."""
        self.llm.engine_core.shutdown()
        del self.llm
        cleanup_dist_env_and_memory()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._merged is not None:
            shutil.rmtree(self._merged)


def _arguments(config: VLLMEngine, model: Path, dtype: Dtype, longest: int) -> EngineArgs:
    on_gpu = torch.cuda.is_available()
    optional: dict[str, Any] = {} if config.max_num_seqs is None else {"max_num_seqs": config.max_num_seqs}
    return EngineArgs(
        model=str(model),
        dtype=dtype,
        max_model_len=longest,
        tensor_parallel_size=config.tensor_parallel,
        gpu_memory_utilization=config.gpu_memory_utilization if on_gpu else _CPU_MEMORY,
        enforce_eager=config.enforce_eager,
        enable_prefix_caching=True,
        # Of the distribution that was drawn from, after temperature, top-k and top-p.
        logprobs_mode="processed_logprobs",
        # The recipe's decoding alone holds; the model's own defaults are not mixed in.
        generation_config="vllm",
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **optional,
    )


def _completion(request: Request, output: Any, rule: StopRule) -> Completion:
    """One finished request; anything but a stop or the limit is a failed sample."""
    if output.finish_reason not in _REASONS:
        return Completion(None, None, "error", f"vLLM ended the request: {output.finish_reason}")
    so_far = list(request.response_ids)
    whole, reason, text = rule.finish([*so_far, *output.token_ids], _REASONS[output.finish_reason])
    logprobs = output.logprobs.logprobs[: len(whole) - len(so_far)]
    return Completion(whole, logprobs, reason, text)


def _merged(checkpoint: Path, tokenizer: PreTrainedTokenizerBase, dtype: Dtype, scratch: Path) -> Path | None:
    """An adapter merged into its base in a folder that vLLM reads; None for whole weights."""
    if not (checkpoint / "adapter_config.json").is_file():
        return None
    from erpd_hub.models import load_model, save_checkpoint

    folder = scratch / "merged"
    model = load_model(checkpoint, dtype, placed=False)  # on the CPU: the GPU is vLLM's
    save_checkpoint(model, tokenizer, folder)
    return folder
