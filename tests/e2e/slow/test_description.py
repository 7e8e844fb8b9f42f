"""Random requests of every kind that /openapi.json describes."""

import pytest

from tests.e2e.description import check_description


@pytest.mark.timeout(1000)
def test_what_the_document_describes_is_what_the_service_does(languages, tmp_path):
    check_description(languages, tmp_path, "examples,coverage,fuzzing")
