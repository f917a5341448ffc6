"""Programs as answers: a sandbox to run them in, tests to grade them by, and LiveCodeBench."""
