"""The page as a whole: its tabs, its theme, and the ASGI application that serves it."""

from pathlib import Path

import gradio as gr
from starlette.applications import Starlette
from starlette.middleware import Middleware

from serve_app.ui.chat import ChatTab
from serve_app.ui.detection import SAMPLES, DetectionTab
from serve_app.ui.restrictions import BlockRoutes, restrict_files
from serve_app.ui.service import Service
from serve_app.ui.status import StatusTab

PATH = "/ui"
STYLE = Path(__file__).with_name("style.css")
FILES_KEPT_S = 3600  # uploaded and drawn pictures
MAX_RUNNING_EVENTS, MAX_QUEUED_EVENTS = 8, 64  # of each kind, from all visitors
MAX_UPLOAD_BYTES = 20 << 20
LOOK_S, PROGRESS_S = 0.05, 0.1  # how often the queue is looked at, and what running events say
HEADER = """<header class="top"><h1>serve_app playground</h1>
<p>Detection through in-process Triton and language models through vLLM, behind one router.</p>
<nav><a href="../docs" target="_blank">HTTP interface</a><a href="../metrics" target="_blank">Metrics</a></nav></header>
"""
# System fonts: the page loads nothing from other hosts.
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
    """Serves /ui; Gradio needs the path as root_path too, or leaves it out of some files' URLs."""
    blocks = build_blocks(Service(service_url))
    restrict_files(blocks)
    return gr.mount_gradio_app(  # type: ignore[no-any-return]
        Starlette(middleware=[Middleware(BlockRoutes)]), blocks, PATH, root_path=PATH, theme=THEME, css_paths=STYLE,
        footer_links=[], show_error=False, run_history=False, ssr_mode=False, mcp_server=False,
        enable_monitoring=False, pwa=False, max_file_size=MAX_UPLOAD_BYTES,
        allowed_paths=[str(path) for path in SAMPLES],
    )  # fmt: skip


def build_blocks(service: Service) -> gr.Blocks:
    with gr.Blocks(
        title="serve_app playground",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(FILES_KEPT_S, FILES_KEPT_S),
    ) as blocks:
        gr.HTML(HEADER)
        with gr.Tab("Detect"):
            detection = DetectionTab(service)
        with gr.Tab("Chat"):
            chat = ChatTab(service)
        with gr.Tab("Status") as tab:
            StatusTab(service, tab)
        for part in (detection, chat):
            blocks.load(part.update, None, part.updated, show_progress="hidden", api_visibility="private")
    blocks.queue(default_concurrency_limit=MAX_RUNNING_EVENTS, max_size=MAX_QUEUED_EVENTS, api_open=False)
    # Gradio's own values for Windows: with the others an idle page takes six percent of a processor
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = LOOK_S, PROGRESS_S
    return blocks
