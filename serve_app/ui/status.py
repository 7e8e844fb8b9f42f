"""The Status tab: deployments and their replicas, tracks, models and language models."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from html import escape
from typing import Any

import gradio as gr

from serve_app.errors import ServeAppError
from serve_app.ui.html import badge, failure, note, section, table
from serve_app.ui.service import Service


class StatusTab:
    """Tables that are read from the service when the tab is opened or refreshed."""

    def __init__(self, service: Service, tab: gr.Tab) -> None:
        self._service = service
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=120, elem_id="refresh")
        shown = gr.HTML(note("Loading…"), elem_id="status")
        for event in (refresh.click, tab.select):
            event(self.show, None, shown, show_progress="hidden", api_visibility="private")

    async def show(self, visitor: gr.Request | None = None) -> str:
        """A table that can't be read is replaced by its error."""
        service = self._service.seen_by(visitor)
        parts: tuple[tuple[str, Callable[[Service], Awaitable[str]]], ...] = (
            ("Deployments", self._deployments),
            ("Detection tracks", self._tracks),
            ("Language models", self._language_models),
            ("Models under KServe v2", self._models),
        )
        contents = await asyncio.gather(*(_or_failure(make(service)) for _, make in parts))
        sections = [section(title, content) for (title, _), content in zip(parts, contents, strict=True)]
        when = time.strftime("%H:%M:%S")
        return f'<div class="status">{"".join(sections)}</div>' + note(f"As of {when} on the server's clock.")

    async def _deployments(self, service: Service) -> str:
        health = await service.health()
        try:
            warm = await service.warmup_status()
        except ServeAppError:
            warm = {}  # not answered while a deployment starts
        rows = [
            (escape(name), badge("ready" if ready else "not ready", ready), replicas_of(warm.get(name) or {}))
            for name, ready in health["deployments"].items()
        ]
        return table(("deployment", "state", "replicas"), rows)

    async def _tracks(self, service: Service) -> str:
        rows = [
            (
                escape(track["track"]),
                f"<code>{escape(track['path'])}</code>",
                escape(" ".join(str(track["model"].get(key, "")) for key in ("backend", "device", "precision"))),
                badge("ready" if track["ready"] else "not ready", bool(track["ready"])),
            )
            for track in await service.tracks()
        ]
        return table(("track", "path", "engine", "state"), rows) if rows else note("None configured.")

    async def _language_models(self, service: Service) -> str:
        names, index = await asyncio.gather(service.language_models(), service.index())
        states = {row["name"]: row for row in index}
        rows = [(escape(name), _state(states.get(root, {}))) for name, root in names.items()]
        return table(("model", "state"), rows) if rows else note("None configured.")

    async def _models(self, service: Service) -> str:
        index = await service.index()
        try:
            counts = {row["name"]: row["inference_count"] for row in await service.statistics()}
        except ServeAppError:
            counts = {}
        rows = [
            (escape(row["name"]), escape(row.get("version", "")), _state(row), str(counts.get(row["name"], "–")))
            for row in sorted(index, key=lambda row: str(row["name"]))
        ]
        return table(("model", "version", "state", "inferences"), rows)


async def _or_failure(made: Awaitable[str]) -> str:
    try:
        return await made
    except ServeAppError as error:
        return failure(error)


def replicas_of(models: dict[str, dict[str, Any]]) -> str:
    """Every replica has each model of its deployment, and is as warm as the coldest of them."""
    if not models:
        return "–"
    ready = min(model["replicas_ready"] for model in models.values())
    return f"{ready} of {max(model['replicas'] for model in models.values())} warm"


def _state(row: dict[str, Any]) -> str:
    state = str(row.get("state") or "unknown").lower()
    reason = f' <span class="reason">{escape(row["reason"])}</span>' if row.get("reason") else ""
    return badge(state, state == "ready") + reason
