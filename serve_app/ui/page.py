"""The page as a whole: its tabs, its looks, and the application that answers for it."""

from pathlib import Path

import gradio as gr
from starlette.applications import Starlette
from starlette.middleware import Middleware

from serve_app.ui.chat import ChatTab
from serve_app.ui.detection import SAMPLES, DetectionTab
from serve_app.ui.guard import Guard, close_doors
from serve_app.ui.service import Service
from serve_app.ui.status import StatusTab

PATH = "/ui"
STYLE = Path(__file__).with_name("style.css")
KEPT_S = 3600  # how long pictures that were uploaded or drawn stay
EVENTS_AT_ONCE, EVENTS_WAITING = 8, 64  # of each kind, from all visitors
UPLOAD_BYTES = 20 << 20
HEADER = """<header class="top"><h1>serve_app playground</h1>
<p>Detection through in-process Triton and language models through vLLM, behind one router.</p>
<nav><a href="../docs" target="_blank">HTTP interface</a><a href="../metrics" target="_blank">Metrics</a></nav></header>
"""
# Fonts of the reader's machine: a page that asks no other host for anything works everywhere.
THEME = gr.themes.Soft(
    primary_hue="emerald",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    background_fill_primary="*neutral_50",
    block_background_fill="white",
    block_title_background_fill="transparent",
    block_title_background_fill_dark="transparent",
    block_title_padding="0",
    block_title_text_color="*body_text_color_subdued",
    block_title_text_color_dark="*body_text_color_subdued",
)


def build_page(service_url: str) -> Starlette:
    """Everything below /ui, which Gradio would forget in the addresses of some files if it were not told twice."""
    blocks = build_blocks(Service(service_url))
    close_doors(blocks)
    return gr.mount_gradio_app(  # type: ignore[no-any-return]
        Starlette(middleware=[Middleware(Guard)]), blocks, PATH, root_path=PATH, theme=THEME, css_paths=STYLE,
        footer_links=[], show_error=False, run_history=False, ssr_mode=False, mcp_server=False,
        enable_monitoring=False, pwa=False, max_file_size=UPLOAD_BYTES,
        allowed_paths=[str(path) for path in SAMPLES],
    )  # fmt: skip


def build_blocks(service: Service) -> gr.Blocks:
    with gr.Blocks(
        title="serve_app playground", analytics_enabled=False, fill_width=True, delete_cache=(KEPT_S, KEPT_S)
    ) as blocks:
        gr.HTML(HEADER)
        with gr.Tab("Detect"):
            pictures = DetectionTab(service)
        with gr.Tab("Chat"):
            chat = ChatTab(service)
        with gr.Tab("Status") as tab:
            StatusTab(service, tab)
        for part in (pictures, chat):
            blocks.load(part.update, None, part.updated, show_progress="hidden", api_visibility="private")
    blocks.queue(default_concurrency_limit=EVENTS_AT_ONCE, max_size=EVENTS_WAITING, api_open=False)
    return blocks
