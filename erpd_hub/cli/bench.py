"""`bench`: measurements that anyone can repeat."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from erpd_hub.cli.options import AsJson, stdout_for_json
from erpd_hub.cli.sweep import SEEDS, read_sweep

app = typer.Typer(no_args_is_help=True, help="Measurements that anyone can repeat.")


@app.command()
def seeds(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")] = "quickstart",
    seed: Annotated[str, typer.Option("--seeds", help=SEEDS)] = "3,4,5",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    as_json: AsJson = False,
) -> None:
    """`sweep --seeds`, and which expectations of the quick start, fixed beforehand, hold on every one of them."""
    from erpd_hub.benchmarks.seeds import check_claims
    from erpd_hub.comparing.sweep_run import run_sweep
    from erpd_hub.comparing.sweep_tables import print_checks, print_sweep
    from erpd_hub.display import ProgressWatch, print_json

    planned = read_sweep(recipe, overrides or [], seeds=seed)
    with stdout_for_json(as_json):
        outcome = run_sweep(planned, watch=ProgressWatch(planned.plan))
    checks = check_claims(outcome.report)
    if as_json:
        print_json(outcome.report | {"checks": checks})
    else:
        print_sweep(outcome)
        print_checks(checks)


@app.command()
def score(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder.")],
    samples: Annotated[int, typer.Option(help="Random responses in all.")] = 64,
    mean_length: Annotated[int, typer.Option(help="Tokens of a response; lengths are heavy-tailed.")] = 200,
    shards: Annotated[int, typer.Option(help="Files they lie in; the two take turns file by file.")] = 4,
    micro_batch_tokens: Annotated[int, typer.Option(help="Tokens of a forward pass.")] = 4096,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    memory: Annotated[
        bool, typer.Option(help="Also the stage's peak memory on this much data and on four times it.")
    ] = False,
) -> None:
    """The score stage's response tokens a second against a bare forward pass over the same batches."""
    from erpd_hub.benchmarks.score import score_against_forward, score_memory
    from erpd_hub.display import print_json

    shape = {"samples": samples, "mean_length": mean_length, "shards": shards, "budget": micro_batch_tokens}
    report = score_against_forward(checkpoint, dtype=dtype, **shape)
    print_json(report | (score_memory(checkpoint, **shape) if memory else {}))


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def step(context: typer.Context) -> None:
    """Memory, time and MFU of training and scoring a shape with random weights; `--help` has its options."""
    # They are its own, since `python -m erpd_hub.benchmarks.step` has to work without typer.
    from erpd_hub.benchmarks.step import main

    main(context.args)


@app.command()
def trl(
    shape: Annotated[str, typer.Option(help="Random weights of this shape.")] = "smollm2-135m",
    lengths: Annotated[Literal["even", "heavy"], typer.Option(help="Spread of the responses' lengths.")] = "even",
    median: Annotated[int, typer.Option(min=1, help="Tokens of a response.")] = 192,
    rows: Annotated[int, typer.Option(min=4, help="Of an optimizer step, a multiple of 4.")] = 16,
    micro_rows: Annotated[int, typer.Option(min=1, help="TRL's per_device_train_batch_size.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of a run, after one that warms up.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side, taking turns.")] = 3,
    as_json: AsJson = False,
) -> None:
    """A training step's tokens/s against TRL's GRPOTrainer on the same rollouts."""
    from erpd_hub.benchmarks.trl import TRLBench, render, run
    from erpd_hub.display import print_json

    with stdout_for_json(as_json):
        report = run(TRLBench(shape, lengths, median, rows, micro_rows, steps, repeats))
    print_json(report) if as_json else typer.echo(render(report))


@app.command()
def distill(
    shape: Annotated[str, typer.Option(help="Random weights of this shape.")] = "smollm2-135m",
    length: Annotated[str, typer.Option(help="Tokens of the one sequence, comma-separated.")] = "1024,2048,4096",
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    checkpointing: bool = True,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """A distillation step with precomputed signal against a teacher step: time and memory of both."""
    from erpd_hub.benchmarks.distill import DistillBench, render, run
    from erpd_hub.display import print_json

    lengths = tuple(int(item) for item in length.split(","))
    with stdout_for_json(as_json):
        report = run(DistillBench(shape, lengths, dtype, checkpointing, repeats))
    print_json(report) if as_json else typer.echo(render(report))


@app.command()
def sandbox(
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side, taking turns.")] = 50,
    workers: Annotated[int, typer.Option(min=1, help="Programs at once, for the throughput.")] = 2,
    as_json: AsJson = False,
) -> None:
    """What the sandbox adds to running a program, against a bare interpreter in the same run."""
    from erpd_hub.benchmarks.sandbox import SandboxBench, render, run
    from erpd_hub.display import print_json

    report = run(SandboxBench(repeats, workers))
    print_json(report) if as_json else typer.echo(render(report))


@app.command()
def cache(
    shape: Annotated[str, typer.Option(help="Random weights of this shape.")] = "tiny",
    rows: Annotated[int, typer.Option(min=1, help="Sequences of the batch.")] = 128,
    tokens: Annotated[int, typer.Option(min=1, help="Decoded of each.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side, taking turns.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Decoding with a cache that grows in place against transformers' own, which is copied at each token."""
    from erpd_hub.benchmarks.cache import CacheBench, render, run
    from erpd_hub.display import print_json

    report = run(CacheBench(shape, rows, tokens, repeats))
    print_json(report) if as_json else typer.echo(render(report))


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def memory(context: typer.Context) -> None:
    """Peak memory of a training pass against length, ours against whole logits; `--help` has its options."""
    from erpd_hub.benchmarks.memory import main

    main(context.args)


@app.command()
def precision(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    as_json: AsJson = False,
) -> None:
    """Signal and student of a teacher pushed in fp32 and in bf16, at its steps 10 and 50."""
    from erpd_hub.benchmarks.precision import render, run
    from erpd_hub.display import print_json

    with stdout_for_json(as_json):
        report = run(overrides or [])
    print_json(report) if as_json else typer.echo(render(report))


_Prompts = Annotated[int, typer.Option(min=1, help="Each with K samples.")]
_Slots = Annotated[int | None, typer.Option(help="Samples that vLLM decodes together; default: its own choice.")]
_Eager = Annotated[bool, typer.Option("--eager", help="Without CUDA graphs and compilation: a faster start.")]
_Checkpoint = Annotated[Path, typer.Argument(help="A checkpoint's folder.")]


@app.command()
def sampling(
    checkpoint: _Checkpoint,
    prompts: _Prompts = 16,
    k: Annotated[int, typer.Option(min=1)] = 8,
    mean_tokens: Annotated[int, typer.Option(min=1, help="Of a response.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side, taking turns.")] = 3,
    max_num_seqs: _Slots = None,
    eager: _Eager = False,
) -> None:
    """Tokens/s of the sampler with vLLM against vLLM alone on the same requests."""
    from erpd_hub.benchmarks.sampling import Workload, against_bare
    from erpd_hub.config import VLLMEngine
    from erpd_hub.display import print_json

    config = VLLMEngine(type="vllm", max_num_seqs=max_num_seqs, enforce_eager=eager)
    print_json(against_bare(checkpoint, config, Workload(prompts, k, mean_tokens, repeats)))


@app.command()
def tail(
    checkpoint: _Checkpoint,
    prompts: _Prompts = 32,
    k: Annotated[int, typer.Option(min=1)] = 8,
    mean_tokens: Annotated[int, typer.Option(min=1, help="Of a response; the longest have four times as many.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side, taking turns.")] = 3,
    max_num_seqs: _Slots = 8,
    eager: _Eager = False,
) -> None:
    """Time of a heavy-tailed workload of forced lengths against its tokens at steady throughput, with vLLM."""
    from erpd_hub.benchmarks.sampling import Workload, heavy_tail
    from erpd_hub.config import VLLMEngine
    from erpd_hub.display import print_json

    config = VLLMEngine(type="vllm", max_num_seqs=max_num_seqs, enforce_eager=eager)
    print_json(heavy_tail(checkpoint, config, Workload(prompts, k, mean_tokens, repeats)))


@app.command()
def coverage(
    problems: Annotated[str, typer.Option(help="Numbers of problems, comma-separated.")] = "15,30,100,400",
    k: Annotated[str, typer.Option(help="Samples a problem, comma-separated.")] = "1,4,8,32",
    trials: Annotated[int, typer.Option(min=1, help="Of each setting.")] = 400,
    as_json: AsJson = False,
) -> None:
    """How often the 95 % intervals of AVG@K and of paired differences hold the truth, beside the bootstrap's."""
    from erpd_hub.benchmarks.coverage import render, run
    from erpd_hub.display import print_json

    sizes = [[int(item) for item in text.split(",")] for text in (problems, k)]
    report = run(
        problems=sizes[0], samples=sizes[1], trials=trials, progress=lambda line: typer.echo(f"  {line}", err=True)
    )
    print_json(report) if as_json else typer.echo(render(report))


@app.command()
def grade(
    problems: Annotated[int, typer.Option(min=1, help="Of all benchmarks together, each with 32 answers.")] = 400,
    words: Annotated[int, typer.Option(min=1, help="Of reasoning before an answer.")] = 300,
    sample: Annotated[int, typer.Option(min=1, help="Different answers that math-verify alone is timed on.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Answers graded a minute from a cold start, and the ratio to math-verify alone."""
    from erpd_hub.benchmarks.grade import GradeBench, render, run
    from erpd_hub.display import print_json

    report = run(GradeBench(problems, words, sample))
    print_json(report) if as_json else typer.echo(render(report))


@app.command()
def hub(
    megabytes: Annotated[int, typer.Option(min=1, help="Of the large file.")] = 500,
    repeats: Annotated[int, typer.Option(min=1, help="Of copy, push and pull, taking turns.")] = 3,
    commits: Annotated[int, typer.Option(min=1, help="Of one small file each.")] = 100,
    resolves: Annotated[int, typer.Option(min=1, help="Of a file that is cached already.")] = 200,
    as_json: AsJson = False,
) -> None:
    """The embedded Hub's push and pull of a large file beside cp, small commits a second, a cached resolve's time."""
    from erpd_hub.benchmarks.hub import HubBench, render, run
    from erpd_hub.display import print_json

    report = run(HubBench(megabytes, repeats, commits, resolves))
    print_json(report) if as_json else typer.echo(render(report))
