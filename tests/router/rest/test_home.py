"""The first page: what is served and how to ask for it, for browsers and for curl."""

import shlex

from starlette.applications import Starlette
from starlette.testclient import TestClient

from serve_app.router.rest.home import Home

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def client(*, tracks=("/predict/nano", "/pytorch/predict/nano"), models=("demo-llm",), playground=True, keys=False):
    home = Home(tracks, models, playground, keys)
    return TestClient(Starlette(routes=home.routes()), base_url="http://service.example:8000")


def test_a_browser_gets_a_page_and_curl_the_same_as_text():
    page, text = client().get("/", headers=BROWSER), client().get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert text.headers["content-type"].startswith("text/plain")
    for part in ("2 ways to detections, such as /predict/nano; language models: demo-llm", "every HTTP endpoint"):
        assert part in page.text
        assert part in text.text
    assert '<a href="ui/">' in page.text, "relative, so that it works behind any prefix"
    assert 'name="viewport"' in page.text


def test_its_requests_can_be_copied_into_a_shell():
    commands = [line.strip() for line in client().get("/").text.splitlines() if line.startswith("  curl")]
    detect, chat, index = (shlex.split(command) for command in commands)
    assert detect[-1] == "http://service.example:8000/predict/nano?conf=0.5"
    assert (chat[1], chat[-1][:20]) == ("http://service.example:8000/v1/chat/completions", '{"model": "demo-llm"')
    assert index[1:] == ["-X", "POST", "http://service.example:8000/v2/repository/index"]


def test_requests_have_the_key_where_one_is_asked_for():
    text = client(keys=True).get("/").text
    assert text.count('-H "Authorization: Bearer $SERVE_APP_KEY"') == 3


def test_what_is_not_served_is_not_offered():
    text = client(models=(), playground=False).get("/").text
    assert "chat" not in text
    assert "/ui" not in text
    text = client(tracks=(), models=()).get("/").text
    assert "Triton models, at /v2/models" in text
    assert "picture.jpg" not in text


def test_a_strange_host_is_not_repeated():
    for host in ("<script>", "a b", "x;y", "'"):
        text = client().get("/", headers=BROWSER | {"host": host}).text
        assert "http://localhost:8000/predict/nano" in text, host
        assert "<script>" not in text
