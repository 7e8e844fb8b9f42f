"""Which deployments the composed application expects."""

import pytest

from serve_app.app import build, route_tracks
from serve_app.errors import ConfigurationError
from serve_app.settings import parse_settings


def test_models_of_ones_own_need_no_tracks_beside_them_and_a_pattern_that_misses_all_is_refused():
    own = {"name": "numbers", "model_repository": "tests/triton/embedded/models", "models": ["identity"]}
    args = {"triton": [own], "router": {"hosts": "numbers"}, "baseline": None}
    assert route_tracks(parse_settings(args)) == {}
    assert build(args)._bound_deployment.name == "router"
    missed = args | {"triton": [own | {"model_repository": None}]}
    with pytest.raises(ConfigurationError, match=r"no deployment serves any track: triton\[\].models matches none"):
        build(missed)
