"""Other harnesses as second opinions: lighteval and evalscope on our stored samples, and their outputs as our details.

* `regrade`: stored samples under other graders, each difference with its cause.
* `replay`: a whole harness run on stored samples, so that its own AVG@K differs from ours by its grader alone.
* `programs`: stored programs through evalscope's LiveCodeBench, in docker.
* `second`: what `regrade` and `evaluate --backend` report of all these.
* `live`: evalscope's own run against an OpenAI-compatible endpoint, on our problems.
* `imports`: lighteval's details and evalscope's reviews as rows of SAMPLE_SCHEMA.
* `tasks`: our benchmarks as a custom-tasks folder for lighteval.
* `environments`: their locked environments, built on demand; `foreign/` runs in there and imports nothing of ours.
"""
