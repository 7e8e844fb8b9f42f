"""A model without a replica wakes for its first request, and sleeps again."""

import numpy as np
import pytest

WAKES_WITHIN_S = 300


def test_a_model_that_embeds_wakes_for_its_first_request_and_sleeps_again(waking, client, service, wait_for):
    answer = waking.result(WAKES_WITHIN_S)
    assert answer.status_code == 200, answer.text
    vectors = [np.array(one["embedding"]) for one in answer.json()["data"]]
    assert [len(vector) for vector in vectors] == [256, 256]
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-3)
    assert not np.allclose(vectors[0], vectors[1])
    wait_for(lambda: service.replicas("embedder") == [], WAKES_WITHIN_S, "no replica while nobody asks")
