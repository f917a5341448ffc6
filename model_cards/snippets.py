"""Python in cards that asks a checkpoint one problem. What comes from records goes in as literals only."""

import re

from erpd_hub.asking import Asked

_PRINT = 'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))'


def ask(asked: Asked) -> str:
    """Lines that need `model` and `tokenizer`, and print one answer."""
    return "\n".join((_problem(asked), *_inputs(asked), _generate(asked), _PRINT))


def imports(asked: Asked | None) -> str:
    """What those lines import, each import with its line break."""
    return "from datasets import load_dataset\n" if asked is not None and asked.problem is None else ""


def _problem(asked: Asked) -> str:
    if asked.problem is not None or asked.place is None:
        return f"problem = {_literal(asked.problem or '')}"
    place = f"{_literal(asked.place.repo_id)}, revision={_literal(asked.place.revision)}"
    return f'problem = load_dataset({place}, split="train")[0]["problem"]'


def _inputs(asked: Asked) -> list[str]:
    prompt = f'{_literal(asked.format.template)}.replace("{{problem}}", problem)'
    if not asked.format.chat:
        return [f'inputs = tokenizer({prompt}, return_tensors="pt")']
    system = asked.format.system_prompt
    told = "" if system is None else f'{{"role": "system", "content": {_literal(system)}}}, '
    options = f", **{asked.format.chat_template_kwargs!r}" if asked.format.chat_template_kwargs else ""
    return [
        f'messages = [{told}{{"role": "user", "content": {prompt}}}]',
        "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, "
        f'return_tensors="pt"{options})',
    ]


def _generate(asked: Asked) -> str:
    drawn = asked.decoding
    sampled = f"do_sample=True, temperature={drawn.temperature}, top_p={drawn.top_p}, top_k={drawn.top_k}"
    how = sampled if drawn.temperature else "do_sample=False"
    stop = f", stop_strings={list(asked.format.stop)!r}, tokenizer=tokenizer" if asked.format.stop else ""
    unsaid = f"  # drawn with a presence penalty of {drawn.presence_penalty}, which it lacks" * bool(
        drawn.presence_penalty
    )
    return f"output = model.generate(**inputs, {how}, max_new_tokens={drawn.max_new_tokens}{stop}){unsaid}"


def _literal(value: str) -> str:
    return f'"{value}"' if re.fullmatch(r"[\w ./@:+?{}-]*", value) else repr(value)
