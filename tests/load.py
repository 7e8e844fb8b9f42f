"""A constant load of pictures and chats, and what became of each request."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

RATE = 4  # pictures a second
CHATS = 2  # conversations at a time
PATIENCE_S = 240
SLOW_S = 3
PICTURE = (Path(__file__).resolve().parent.parent / "docs" / "shapes.jpg").read_bytes()
QUESTION = {"model": "demo-llm", "messages": [{"role": "user", "content": "What is vLLM?"}], "max_tokens": 24}


@dataclass
class Load:
    """Pictures at a rate, whether or not earlier ones are answered, and chats one after the other."""

    url: str
    rate: float = RATE
    chats: int = CHATS
    outcomes: list = field(default_factory=list)  # kind, seconds, status or the error, and when it ended
    ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self):
        threads = [
            threading.Thread(target=self._pictures),
            *(threading.Thread(target=self._chats) for _ in range(self.chats)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()

    def _pictures(self):
        waiting = []
        while not self.ended.wait(1 / self.rate):
            waiting.append(threading.Thread(target=self._ask, args=["picture", "/predict/nano_end2end"]))
            waiting[-1].start()
        for thread in waiting:
            thread.join()

    def _chats(self):
        while not self.ended.is_set():
            self._ask("chat", "/v1/chat/completions")

    def _ask(self, kind, path):
        began = time.monotonic()
        body = {"content": PICTURE} if kind == "picture" else {"json": QUESTION}
        try:
            answer = httpx.post(f"{self.url}{path}", timeout=PATIENCE_S, **body)
            right = answer.status_code == 200 and (kind == "chat" or answer.json()["num_detections"] == 6)
            outcome = 200 if right else f"{answer.status_code} {answer.text[:120]}"
        except httpx.HTTPError as problem:
            outcome = repr(problem)
        self.outcomes.append((kind, time.monotonic() - began, outcome, time.monotonic()))

    @property
    def failed(self):
        return [(kind, outcome) for kind, _, outcome, _ in self.outcomes if outcome != 200]

    def disturbed_until(self, since):
        """How long after that the last request ended that failed or was slow."""
        ends = [at for _, seconds, outcome, at in self.outcomes if outcome != 200 or seconds > SLOW_S]
        return max((at - since for at in ends), default=0)
