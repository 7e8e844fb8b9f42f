"""What schemathesis sends, and a check of its own: no fault of the server."""

import schemathesis

LANGUAGE_MODELS = {"demo-llm", "second-llm", "embedder", "nowhere", "muddled"}  # they take minutes to answer all of it
UNLOADED = "is not at ready state"  # by a request before


@schemathesis.hook
def filter_path_parameters(ctx, path_parameters):
    return not path_parameters or path_parameters.get("model") not in LANGUAGE_MODELS


@schemathesis.check
def no_fault_of_the_server(ctx, response, case):
    """501 names what isn't there, and 504 is a deadline that the request set itself."""
    if response.status_code >= 500 and response.status_code not in (501, 504):
        assert UNLOADED in response.text, response.text
