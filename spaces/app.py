"""The Space: checkpoints of Extreme Region Policy Distillation runs, read from what they published.

Model text is hostile: it reaches the page only through `markup`, and the page itself may load nothing from elsewhere.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import compare
import dynamics
import leaderboard
import lineage
import signals
from data import Source
from markup import notice

TITLE = "ERPD checkpoints compared"
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own page and its templates need both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' ws: wss:",
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
        scores = gr.State([])
        with gr.Tabs() as tabs:
            with gr.Tab("Leaderboard", id="leaderboard"):
                board = leaderboard.Tab(source, scores)
            with gr.Tab("Compare", id="compare"):
                sides = compare.Tab(source, scores)
            with gr.Tab("KL efficiency", id="efficiency"):
                efficiency = dynamics.EfficiencyTab(scores)
            with gr.Tab("Dynamics", id="dynamics"):
                curves = dynamics.Tab(source, scores)
            with gr.Tab("Signal", id="signal"):
                tokens = signals.Tab(source)
            with gr.Tab("Lineage", id="lineage"):
                graph = lineage.Tab(source, scores)

        def load(request: gr.Request) -> list[Any]:
            found = source.leaderboard()
            query = _query(request)
            opened = query.get("tab", ["compare" if "problem" in query else "leaderboard"])[0]
            return [found.rows, notice(found.missing), gr.update(selected=opened), *board.load(found.rows),
                    *efficiency.load(found.rows), *curves.load(found.rows), *tokens.load(), *graph.load(found.rows),
                    *sides.load(found.rows, query)]  # fmt: skip

        outputs = [scores, missing, tabs, *board.outputs, *efficiency.outputs, *curves.outputs, *tokens.outputs,
                   *graph.outputs, *sides.outputs]  # fmt: skip
        blocks.load(load, None, outputs, api_name="load")
    return blocks


def launch_options() -> dict[str, Any]:
    """How the page is served: its own style, no foreign source, no remote analytics."""
    return {
        "css_paths": [Path(__file__).parent / "style.css"],
        "app_kwargs": {"middleware": [Middleware(ContentPolicy)]},
        "footer_links": [],
        "ssr_mode": False,
    }


def _query(request: gr.Request | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in getattr(getattr(request, "query_params", None), "multi_items", list)():
        found.setdefault(name, []).append(value)
    return found


if __name__ == "__main__":
    build(Source.from_environment()).launch(**launch_options())
