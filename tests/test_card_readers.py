"""Cards for those who do not know the run: what stands first, how a checkpoint is asked, what scores stand beside."""

import ast
import re

from test_cards import HOSTILE, a_dataset, a_record, a_row

from erpd_hub import model_cards
from erpd_hub.artifacts import LineageRecord
from erpd_hub.asking import asked_of
from erpd_hub.hub.server.pages.markdown import to_html
from erpd_hub.lineage import Ancestor, Place
from erpd_hub.lineage_views import Above
from erpd_hub.model_cards import snippets
from erpd_hub.model_cards.results import with_results
from erpd_hub.results.beside import beside


def test_a_reader_finds_results_and_use_before_the_config_which_is_folded() -> None:
    card = model_cards.render(a_record(), command="run quickstart")
    order = ["Intended use", "Results", "How to load it", "Limits", "Where it comes from", "How it was made"]
    assert re.findall(r"(?m)^## (.+)$", card) == order
    assert re.search(r"(?s)<details><summary>The whole config of this step</summary>\n\n```yaml\n.*\n</details>", card)
    assert "\nLicence: apache-2.0, from what it was made of.\n" in card
    assert "in `HF_ENDPOINT`" in card, "the same card stands on every Hub"
    assert "No licence is recorded" in model_cards.render(a_record(license=None))
    metrics = {"explained_variance": 0.5, "kl_old_to_student_k3": 0.25, "mine": 2, "layout": "padded"}
    metrics |= {"kl_penalty": 0.1}
    card = model_cards.render(a_record(metrics=metrics))
    assert "| explained_variance | 0.5 | of the outcome R by" in card
    assert "| kl_old_to_student_k3 | 0.25 | KL(old \\|\\| student), nats per token, the k3 estimate" in card
    assert "| kl_penalty | 0.1 | KL(student \\|\\| old)" in card
    assert "| mine | 2 |  |" in card and "padded" not in card
    critic = model_cards.render(a_record(kind="critic", stage="critic", metrics={"explained_variance": 0.5}))
    assert "| explained_variance | 0.5 | of R by V, as above |" in critic
    prompts = model_cards.render(a_dataset("prompts", stage="prompts", config={"format": {"template": "Q: {problem}"}}))
    assert "| `problem` | string |" in prompts and "```text\nQ: {problem}\n```" in prompts
    kept = model_cards.render(a_dataset("prompts", stage="prompts", config={"columns": ["unit"]}))
    assert "\n| `extra` | string |" in kept and "| `extra` |" not in prompts


def test_a_part_that_folds_on_the_hub_folds_on_the_embedded_one_and_no_other_html_does() -> None:
    fold = "<details><summary>More & <x></summary>\n\n- text\n\n</details>\n\n"
    html = to_html(fold.replace("<x>", "of it") + "<details><summary>never closed</summary>\n\n<b>x</b>\n", "", "main")
    assert "<details><summary>More &amp; of it</summary>\n\n<ul>" in html and html.count("<details>") == 1
    assert "&lt;details&gt;&lt;summary&gt;never closed" in html and "<b>" not in html
    assert "<details>" not in to_html(fold, "", "main")


def an_ancestor(inputs: dict, stage: str = "teacher", **config: object) -> Ancestor:
    record = LineageRecord.model_validate(a_record(stage=stage, config=config, inputs=[]))
    return Ancestor(Place("dataset", "me/prompts", "0" * 40), "", record, list(inputs.items()))


def test_a_checkpoint_says_how_it_is_asked() -> None:
    format = {"template": "Solve:\n{problem}", "system_prompt": "Be brief.", "stop": ["END"]}
    format |= {"chat_template_kwargs": {"enable_thinking": False}}
    prompts = an_ancestor({}, "prompts", format=format)
    decoding = {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32, "presence_penalty": 1.5}
    rollouts = an_ancestor({"prompts": prompts}, "rollout", decoding=decoding, reward="math")
    trained = an_ancestor({"rollouts": rollouts})
    asked = asked_of(an_ancestor({"teacher": trained}, "unlearned"))
    card = model_cards.render(a_record(), above=Above("", asked))
    (code,) = re.findall(r"(?s)```python\n(.*?)\n```", card)
    compile(code, "card", "exec")
    assert 'load_dataset("me/prompts", revision="' in code
    assert """{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'Solve:\\n{problem}'.""" in code
    assert "**{'enable_thinking': False})" in code and "stop_strings=['END']" in code
    assert "do_sample=True, temperature=0.6, top_p=0.95, top_k=0, max_new_tokens=32" in code
    assert "  # drawn with a presence penalty of 1.5, which it lacks" in code
    assert "what stands in the last `\\boxed{}`" in card and "after that system prompt" in card
    plain = an_ancestor({}, "prompts", format={"chat": False, "extract": "first-line"})
    asked = asked_of(an_ancestor({"prompts": plain}, "online", decoding={"temperature": 0.0}, reward="mine:check"))
    card = model_cards.render(a_record(), above=Above("", asked))
    assert 'inputs = tokenizer("{problem}".replace(' in card and "do_sample=False" in card
    assert "Its answers were graded by `mine:check`" in card
    tiny = asked_of(an_ancestor({}, "base", type="tiny", task="addition", max_digits=2))
    assert tiny is not None and tiny.problem == "37+45"
    assert asked_of(an_ancestor({}, "base", type="import")) is None
    assert asked_of(an_ancestor({"rollouts": an_ancestor({"prompts": an_ancestor({}, format=3)})})) is None
    assert "How it has to be asked, no record says" in model_cards.render(a_record())


def test_a_template_in_a_card_is_a_literal_of_python() -> None:
    template = HOSTILE + '")\nimport os #{problem}"""'
    prompts = an_ancestor({}, "prompts", format={"template": template, "chat_template_kwargs": {"x): evil(": template}})
    asked = asked_of(an_ancestor({"prompts": prompts}, "online", decoding={}))
    names = {node.id for node in ast.walk(ast.parse(snippets.ask(asked))) if isinstance(node, ast.Name)}
    assert names == {"problem", "messages", "inputs", "output", "tokenizer", "model", "print", "load_dataset"}
    fences = re.findall(r"(?m)^`{3,}", model_cards.render(a_record(), above=Above("", asked)))
    assert len(fences) % 2 == 0


def a_row_of(place: dict, **changes: object) -> dict:
    at = {"checkpoint_repo": place["repo_id"], "checkpoint_revision": place["revision"], "checkpoint_digest": "d" * 64}
    return a_row(role="base", **(at | {"details_folder": "base/toy"} | changes))


def test_scores_stand_beside_those_of_what_the_checkpoint_comes_from_that_were_measured_alike() -> None:
    raw = a_record(stage="distill", config={})
    record, start = LineageRecord.model_validate(raw), raw["inputs"][0]
    own = a_row(base_repo=start["repo_id"], base_revision=start["revision"])
    alike, elsewhere = a_row_of(start, avg=0.25), a_row_of(start, avg=0.375, run="older")
    others = [a_row_of(start, temperature=0.6), a_row_of(start, benchmark="other"), a_row_of(start, k=8), elsewhere]
    assert beside(own, [own, *others, alike], record) == [("its start", alike)], "of the same run, once"
    assert beside(own, others[:3], record) == []
    card = with_results(model_cards.render(raw), [(own, [("its start", alike)])], [])
    assert card.index("| **this** | `toy` v1 | 50.0 |") < card.index("| its start | `toy` v1 | 25.0 |")
    assert "- its start, [`local/quick-base@0123456`]" in card
    assert "`erpd-hub compare me/details/a/toy me/details/base/toy`" in card
    card = with_results(model_cards.render(raw), [(own, [])], [])
    assert "this one says nothing of what was gained" in card
