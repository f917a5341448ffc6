"""The templates of cards, and what they may do with a value."""

from importlib.resources import files
from shlex import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from erpd_hub.model_cards import text
from erpd_hub.model_cards.metrics import meaning

_FILTERS = {
    "code": text.code,
    "fenced": text.fenced,
    "interval": text.interval,
    "limits": text.limits,
    "link": text.link,
    "link_place": text.link_place,
    "meaning": meaning,
    "number": text.number,
    "percent": text.percent,
    "quoted": quote,
    "words": text.words,
    "yaml": text.yaml_block,
}


def template(name: str) -> Template:
    """The template `{name}.md.jinja`."""
    folder = files("erpd_hub.model_cards")
    environment = Environment(
        loader=FunctionLoader(lambda file: (folder / file).read_text(encoding="utf-8")),
        autoescape=True,  # together with `finalize`: every value is escaped for Markdown unless a filter marked it safe
        finalize=text.plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment.get_template(f"{name}.md.jinja")
