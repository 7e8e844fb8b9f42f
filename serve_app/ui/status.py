"""The tab of what is served: deployments and their replicas, tracks, models and language models."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from html import escape
from typing import Any

import gradio as gr

from serve_app.errors import ServeAppError
from serve_app.ui.markup import badge, failure, note, section, table
from serve_app.ui.service import Service


class StatusTab:
    """One page of tables, made anew when it is looked at."""

    def __init__(self, service: Service, tab: gr.Tab) -> None:
        self._service = service
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=120, elem_id="refresh")
        shown = gr.HTML(note("Asking…"), elem_id="status")
        for event in (refresh.click, tab.select):
            event(self.show, None, shown, show_progress="hidden", api_visibility="private")

    async def show(self) -> str:
        """What can't be had says why in its own place."""
        parts: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("Deployments", self._deployments),
            ("Detection tracks", self._tracks),
            ("Language models", self._languages),
            ("Models under KServe v2", self._models),
        )
        contents = await asyncio.gather(*(_told(make) for _, make in parts))
        sections = [section(title, content) for (title, _), content in zip(parts, contents, strict=True)]
        when = time.strftime("%H:%M:%S")
        return f'<div class="status">{"".join(sections)}</div>' + note(f"As of {when}, the service's time.")

    async def _deployments(self) -> str:
        health = await self._service.health()
        try:
            warm = await self._service.warmth()
        except ServeAppError:
            warm = {}  # while something starts; what is there is known from its health
        rows = [
            (escape(name), badge("ready" if there else "not ready", there), replicas_of(warm.get(name) or {}))
            for name, there in health["deployments"].items()
        ]
        return table(("deployment", "state", "replicas"), rows)

    async def _tracks(self) -> str:
        rows = [
            (
                escape(track["track"]),
                f"<code>{escape(track['path'])}</code>",
                escape(" ".join(str(track["model"].get(key, "")) for key in ("backend", "device", "precision"))),
                badge("ready" if track["ready"] else "not ready", bool(track["ready"])),
            )
            for track in await self._service.tracks()
        ]
        return table(("track", "path", "engine", "state"), rows) if rows else note("None are configured.")

    async def _languages(self) -> str:
        names, index = await asyncio.gather(self._service.languages(), self._service.index())
        states = {row["name"]: row for row in index}
        rows = [(escape(name), _state(states.get(root, {}))) for name, root in names.items()]
        return table(("model", "state"), rows) if rows else note("None are configured.")

    async def _models(self) -> str:
        index = await self._service.index()
        try:
            answered = {row["name"]: row["inference_count"] for row in await self._service.statistics()}
        except ServeAppError:
            answered = {}
        rows = [
            (escape(row["name"]), escape(row.get("version", "")), _state(row), str(answered.get(row["name"], "–")))
            for row in sorted(index, key=lambda row: str(row["name"]))
        ]
        return table(("model", "version", "state", "inferences"), rows)


async def _told(make: Callable[[], Awaitable[str]]) -> str:
    try:
        return await make()
    except ServeAppError as problem:
        return failure(problem)


def replicas_of(models: dict[str, dict[str, Any]]) -> str:
    """As many as say that they are warm, of those there are; each model of a deployment is on every replica."""
    if not models:
        return "–"
    counts = models.values()
    return f"{min(one['replicas_ready'] for one in counts)} of {max(one['replicas'] for one in counts)} warm"


def _state(row: dict[str, Any]) -> str:
    state = str(row.get("state") or "unknown").lower()
    reason = f' <span class="reason">{escape(row["reason"])}</span>' if row.get("reason") else ""
    return badge(state, state == "ready") + reason
