"""Models that are asleep when the tests of this folder begin."""

import httpx
import pytest

WAKES_WITHIN_S = 300


@pytest.fixture(scope="session", autouse=True)
def waking(languages, service, background):
    """The first request to the model that sleeps, and to the one that can't start, while other tests go on."""
    assert service.replicas("embedder") == []
    texts = {"model": "embedder", "input": ["a router", "a replica"]}
    background.submit(httpx.post, f"{service.url}/v1/completions", json={"model": "nowhere", "prompt": "x"}, timeout=60)
    return background.submit(httpx.post, f"{service.url}/v1/embeddings", json=texts, timeout=WAKES_WITHIN_S)
