"""What the metrics of records mean, for the tables of cards. What is None tells a reader nothing and is left to
`lineage.json`."""

import re

_POSITIVE, _NEGATIVE = "tokens of right responses", "tokens of wrong responses"

MEANINGS: dict[str, str | None] = {
    # training: token means over the batch of the step
    "step": "the optimizer step that these figures are of",
    "stopped_after": "the last step that was taken: the run's KL target ended it",
    "loss": "what the step minimised; its unit depends on the loss",
    "grad_norm": "norm of the gradient before it was clipped",
    "entropy": "of the distribution at each token, nats",
    "logprob_positive": f"mean log-prob of {_POSITIVE}, nats",
    "logprob_negative": f"mean log-prob of {_NEGATIVE}, nats",
    "probability_positive": f"mean probability of {_POSITIVE}",
    "probability_negative": f"mean probability of {_NEGATIVE}",
    "explained_variance": "of the outcome R by the tokens' probabilities: 1 - Var(R - p) / Var(R); below 0 they tell "
    "less than the mean outcome does",
    "explained_variance_held_out": "the same on prompts that were not trained on",
    "clip_fraction": "share of tokens whose gradient the clip removed",
    "reward_magnitude": "mean absolute reward of a response",
    "reward": "share of right answers among the step's own samples",
    "share_removed": "share of tokens whose signal the sign mask set to 0",
    "whitening_shift": "mean of the masked signal, nats: the advantage is (signal - shift) x scale",
    "whitening_scale": "one over the standard deviation of the masked signal",
    "kl_penalty": "KL(student || old) as the loss takes it on old samples, before its weight, nats per token",
    "value_positive": f"mean V of {_POSITIVE}",
    "value_negative": f"mean V of {_NEGATIVE}",
    "tokens": "response tokens that these figures are over",
    "prompts": "how many prompts",
    "samples": "how many responses",
    "layout": None,
    "chat_template_hash": None,
    # bases
    "parameters": "weights of the model",
    "context_length": "tokens of prompt and response together",
    "steps": "optimizer steps of its training",
    "validation_accuracy": "share of right answers on problems of its own when its training ended",
    # responses
    "accuracy": "share of right responses among those that were graded",
    "groups_all_right": "prompts whose graded responses are all right: outcomes tell nothing apart there",
    "groups_all_wrong": "prompts whose graded responses are all wrong",
    "groups_mixed": "prompts with both",
    "k": "responses to each prompt",
    "mean_length": "tokens of a response, the stop token included",
    "response_tokens": "tokens of all responses",
    "truncated": "share of responses that were cut off at the limit, which counts as wrong",
    "no_answer": "share of responses without an answer, which counts as wrong",
    "timeout": "responses whose answer took the grader too long, which counts as wrong",
    "ungradable": "responses that have no label: a gold or a grader failed",
    # prompts
    "read": "problems of the source",
    "in_earlier_sets": "problems left out: in an earlier prompt set",
    "in_benchmarks": "problems left out: overlap with a benchmark",
    "left": "problems that could be drawn",
    "count": "problems drawn: the rows",
    # scores and signals
    "mean_logprob": "of the response tokens, nats",
    "mean_squared_error": "of the tokens' probabilities to the outcome: what the MSE loss makes small",
    "sampler_difference_mean": "mean absolute difference to the log-probs that the sampler gave, nats",
    "sampler_difference_max": "the largest of these",
    "mean": "of the log-ratio over all tokens, nats",
    "mean_positive": f"the same over {_POSITIVE}",
    "mean_negative": f"the same over {_NEGATIVE}",
    "std": "standard deviation of the log-ratio over all tokens, nats",
    "std_positive": f"the same over {_POSITIVE}",
    "std_negative": f"the same over {_NEGATIVE}",
    "strategy": "the pair: 1 teacher and start, 2 teacher and unlearned, 3 one with an earlier, weaker student",
    "noise_floor": "standard deviation of what scoring again differs by, nats; see below",
    "signal_to_noise": "the standard deviation over the noise floor; none where the floor is 0",
    "share_positive": "share of tokens with a log-ratio above 0",
    "share_beyond_5_std": "share of tokens further than 5 standard deviations from the mean",
    "share_beyond_10_std": "share of tokens further than 10 standard deviations from the mean",
    "credit_responses": "wrong responses that leave all right ones of their prompt at some token",
    "credit_at_departure": "share of these whose lowest log-ratio is at that token",
    "credit_by_surprise": "the same of the start's own log-prob: what it takes no teacher to find",
    "credit_by_chance": "the mean of one over their tokens",
}


def meaning(name: str) -> str | None:
    """What a metric means; empty for one that is not known, such as of an own loss, None for one not to be shown."""
    kl = re.fullmatch(r"kl_([a-z]+)_to_([a-z]+)_(k[13])", name)
    if kl:
        return f"KL({kl[1]} || {kl[2]}), nats per token, the {kl[3]} estimate on the responses trained on"
    return MEANINGS.get(name, "")
