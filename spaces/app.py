"""The Space: checkpoints of Extreme Region Policy Distillation runs, read from what they published.

Model text is hostile: it reaches the page only through `markup`, and the page itself may load nothing from elsewhere.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import compare
import dynamics
import efficiency
import leaderboard
import lineage
import signals
from data import Source
from markup import notice
from places import Query, Row

TITLE = "ERPD checkpoints compared"
TABS = ("leaderboard", "compare", "efficiency", "dynamics", "signal", "lineage")
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own page and its templates need both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
    )
)


class ContentPolicy:
    """Adds the content policy to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self.app(scope, receive, with_policy)


def build(source: Source) -> gr.Blocks:
    """The whole page; nothing is read before it is opened."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown(f"# {TITLE}")
        missing = gr.HTML(apply_default_css=False)
        scores, query, opened = gr.State([]), gr.State({}), gr.State([])
        with gr.Tabs() as tabs:
            with gr.Tab("Leaderboard", id="leaderboard"):
                board = leaderboard.Tab(source, scores)
            with gr.Tab("Compare", id="compare") as page:
                parts = {"compare": (page, compare.Tab(source, scores))}
            with gr.Tab("KL efficiency", id="efficiency") as page:
                parts["efficiency"] = page, efficiency.Tab(source, scores)
            with gr.Tab("Dynamics", id="dynamics") as page:
                parts["dynamics"] = page, dynamics.Tab(source, scores)
            with gr.Tab("Signal", id="signal") as page:
                parts["signal"] = page, signals.Tab(source)
            with gr.Tab("Lineage", id="lineage") as page:
                parts["lineage"] = page, lineage.Tab(source, scores)

        def load(request: gr.Request) -> list[Any]:
            found, asked = source.leaderboard(), _query(request)
            selected = gr.update(selected=_first(asked))
            absent = [f"there is no tab {name[:200]}" for name in asked.get("tab", [])[:1] if name not in TABS]
            of_board = board.load(found.rows, asked if _first(asked) == "leaderboard" else {})
            return [found.rows, asked, [], notice(found.missing + absent), selected, *of_board]

        begun = blocks.load(load, None, [scores, query, opened, missing, tabs, *board.outputs], api_name="load")
        asked = [scores, query, opened]
        for name, (page, part) in parts.items():
            page.select(partial(_chosen, name, part), asked, [opened, *part.outputs], api_visibility="private")
        outputs = [opened, *(output for _, part in parts.values() for output in part.outputs)]
        named = {name: part for name, (_, part) in parts.items()}
        begun.then(partial(_linked, named), asked, outputs, api_visibility="private")
    return blocks


def _chosen(name: str, part: Any, rows: list[Row], query: Query, opened: list[str]) -> list[Any]:
    """What a page shows when it is first chosen; nothing of it is read before."""
    return [gr.skip()] * (1 + len(part.outputs)) if name in opened else [[*opened, name], *part.load(rows, query)]


def _linked(parts: Mapping[str, Any], rows: list[Row], query: Query, opened: list[str]) -> list[Any]:
    """The page that the address names, and nothing of the others."""
    first = _first(query)
    if first not in parts or first in opened:
        return [gr.skip()] * (1 + sum(len(part.outputs) for part in parts.values()))
    shown = [
        part.load(rows, query) if name == first else [gr.skip()] * len(part.outputs) for name, part in parts.items()
    ]
    return [[*opened, first], *(value for values in shown for value in values)]


def _first(query: Query) -> str:
    named = query.get("tab", ["compare" if "problem" in query else "leaderboard"])[0]
    return named if named in TABS else "leaderboard"


def launch_options() -> dict[str, Any]:
    """How the page is served: its own style, no foreign source, no remote analytics."""
    return {
        "css_paths": [Path(__file__).parent / "style.css"],
        "app_kwargs": {"middleware": [Middleware(ContentPolicy)]},
        "footer_links": [],
        "ssr_mode": False,
    }


def _query(request: gr.Request | None) -> Query:
    found: Query = {}
    for name, value in getattr(getattr(request, "query_params", None), "multi_items", list)():
        found.setdefault(name, []).append(value)
    return found


if __name__ == "__main__":
    build(Source.from_environment()).launch(quiet=True, **launch_options())
