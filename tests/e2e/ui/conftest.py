"""Every test of this folder needs the playground."""

import pytest


@pytest.fixture(autouse=True)
def playground(languages):
    return languages
