"""The playground as people meet it: a real browser on the real service, behind two routers."""

import json
import re

import cv2
import httpx
import numpy as np
import pytest

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo.scenes import draw_scene
from serve_app.ui.detection import SAMPLES

CHANGED = 40  # of a pixel's 255: far more than JPEG does to it


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), draw_scene(905, size=(640, 480)).image)
    return path


def upload(page, path):
    page.get_by_label("Remove Image").click()
    with page.expect_response(lambda answer: "/upload" in answer.url):
        page.set_input_files("#picture input[type=file]", path)


def choose(page, number, track):
    page.click(f"#track-{number} input")
    page.get_by_role("option", name=re.compile(rf"^{track} ")).click()
    page.get_by_role("option").first.wait_for(state="detached")  # else it is there twice for the next


def detect(page, *sides):
    """Times of each side by stage, once both are there."""
    for side in sides:
        page.wait_for_function(f"document.querySelector('#track-{side} input').value != ''")
    page.click("#detect")
    for side in sides:
        page.wait_for_selector(f"#result-{side} .bar")
    legends = {side: re.findall(r"(\w+) ([\d.]+) ms", page.inner_text(f"#result-{side} .legend")) for side in sides}
    return {side: {name: float(ms) for name, ms in found} for side, found in legends.items()}


def shown(page, side):
    """The picture that the browser shows there, in pixels."""
    image = page.locator(f"#drawn-{side} img")
    page.wait_for_function("side => document.querySelector(`#drawn-${side} img`).naturalWidth > 0", arg=side)
    size = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    body = page.request.get(image.get_attribute("src")).body()
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert [pixels.shape[1], pixels.shape[0]] == size
    return pixels


def changes_on_edges(original, drawn, detection):
    """How much of the left and lower edge of a box differs from the picture as it was."""
    height, width = original.shape[:2]
    x1, x2 = (int(np.clip(detection[name] * width, 1, width - 2)) for name in ("x1", "x2"))
    y1, y2 = (int(np.clip(detection[name] * height, 1, height - 2)) for name in ("y1", "y2"))
    change = np.abs(drawn.astype(int) - original).max(axis=2) > CHANGED
    left = change[y1:y2, x1 - 1 : x1 + 2].any(axis=1).mean()
    lower = change[y2 - 1 : y2 + 2, x1:x2].any(axis=0).mean()
    return min(left, lower)


def inferences(client):
    return {row["name"]: row["inference_count"] for row in client.get("/v2/models/stats").json()["model_stats"]}


def test_a_picture_that_is_dropped_is_drawn_on_and_two_tracks_are_timed(browse, service, client, scene):
    expected = client.post("/predict/nano?conf=0.4", content=scene.read_bytes()).json()["detections"]
    before = inferences(client)
    page = browse(service.url)
    upload(page, scene)
    page.locator("#picture img").wait_for()
    choose(page, 1, "B")
    choose(page, 2, "C")
    page.get_by_label("number input for Confidence (conf)").fill("0.4")
    times = detect(page, 1, 2)
    original = cv2.imread(str(scene))
    for side in (1, 2):
        rows = page.locator(f"#result-{side} table.rows tbody tr").all_inner_texts()
        assert sorted(row.split()[0] for row in rows) == sorted(one["class_name"] for one in expected)
        drawn = shown(page, side)
        assert drawn.shape == original.shape
        assert min(changes_on_edges(original, drawn, one) for one in expected) > 0.7
        assert np.median(np.abs(drawn.astype(int) - original)) < 5  # all else is as it was
        assert set(times[side]) == {"decode", "preprocess", "queue", "infer", "postprocess", "transport"}
        assert times[side]["infer"] > 1
        assert times[side]["decode"] > 0
    assert times[1] != times[2]
    after = inferences(client)
    assert [after[name] - before[name] for name in ("yolo_nano", "yolo_nano_end2end")] == [1, 1]


def test_a_sample_is_compared_at_a_click(browse, service, client, picture_for_readme):
    sample = PROJECT_ROOT / "docs" / "shapes.jpg"
    expected = client.post("/predict/nano", content=sample.read_bytes()).json()["detections"]
    page = browse(service.url)
    times = detect(page, 1, 2)
    assert set(times) == {1, 2}
    original = cv2.imread(str(sample))
    for side in (1, 2):
        drawn = shown(page, side)
        assert min(changes_on_edges(original, drawn, one) for one in expected) > 0.7
    picture_for_readme(page, "detect")
    first = page.locator("#picture img").get_attribute("src")
    page.locator("#samples button").nth(1).click()
    page.wait_for_function("old => document.querySelector('#picture img')?.src != old", arg=first)
    page.get_by_label("number input for Maximum detections (max_det)").fill("2")
    page.wait_for_timeout(500)  # until the page has taken the number over, which nothing shows
    detect(page, 1, 2)
    page.wait_for_function("document.querySelectorAll('#result-2 table.rows tbody tr').length == 2")
    chosen, drawn = cv2.imread(str(SAMPLES[1])), shown(page, 2)
    assert drawn.shape == chosen.shape
    assert np.median(np.abs(drawn.astype(int) - chosen)) < 5


def test_what_is_no_picture_is_told_and_the_page_goes_on(browse, service, scene, tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("only words")
    page = browse(service.url)
    upload(page, text)
    page.wait_for_timeout(1000)
    page.click("#detect")
    page.wait_for_selector("#result-1 .failure")
    page.wait_for_selector("#result-2 .failure")
    assert "This is not a picture" in page.inner_text("#result-1")
    upload(page, scene)
    page.locator("#picture img").wait_for()
    assert detect(page, 1, 2)[1]["infer"] > 1


def test_the_status_shows_what_is_served(browse, service, client, picture_for_readme):
    page = browse(service.url)
    page.get_by_role("tab", name="Status").click()
    page.wait_for_selector("#status table")
    sections = {one.split("\n")[0]: one for one in page.locator("#status section").all_inner_texts()}
    for name in ("vision", "baseline", "laboratory", "playground"):
        assert re.search(rf"{name}\s+ready", sections["Deployments"]), name
    assert re.search(r"vision\s+ready\s+1 of 1 warm", sections["Deployments"])
    for track in client.get("/tracks").json()["tracks"]:
        assert track["path"] in sections["Detection tracks"]
    names = {row["name"] for row in client.post("/v2/repository/index").json()}
    assert [name for name in names if not re.search(rf"^{name}\s", sections["Models under KServe v2"], re.M)] == []
    assert re.search(r"demo-llm\s+ready", sections["Language models"])
    assert re.search(r"nowhere\s+unavailable", sections["Language models"])
    picture_for_readme(page, "status")


def events_of(url, session):
    with httpx.stream("GET", f"{url}/ui/gradio_api/queue/data?session_hash={session}", timeout=60) as answer:
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]


def test_a_visit_that_began_at_one_router_goes_on_at_the_other(browse, service):
    first, second = service.router_urls()
    config = httpx.get(f"{first}/ui/config").json()
    number = next(one["id"] for one in config["dependencies"] if one["targets"][0][1] == "select")
    for session, (here, there) in {"one": (first, second), "two": (second, first)}.items():
        asked = {"fn_index": number, "session_hash": session, "data": []}
        httpx.post(f"{here}/ui/gradio_api/queue/join", json=asked).raise_for_status()
        events = events_of(there, session)
        (done,) = [event for event in events if event["msg"] == "process_completed"]
        assert done["success"]
        assert "yolo_nano" in done["output"]["data"][0]
        assert events[-1]["msg"] == "close_stream"
    for url in (first, second):
        assert detect(browse(url), 1, 2)[2]["infer"] > 1


FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
TALK = [{"role": "user", "content": [{"type": "file", "file": FILE}]}]


@pytest.mark.parametrize("data", [[FILE, 0.25, 0.7, 300, "/predict/nano", ""], ["x", TALK]], ids=["picture", "chat"])
def test_a_file_that_nobody_uploaded_is_not_taken(service, data):
    config = httpx.get(f"{service.url}/ui/config").json()
    number = next(one["id"] for one in config["dependencies"] if len(one["inputs"]) == len(data))
    asked = {"fn_index": number, "session_hash": f"thief{len(data)}", "data": data}
    httpx.post(f"{service.url}/ui/gradio_api/queue/join", json=asked).raise_for_status()
    (done,) = [event for event in events_of(service.url, f"thief{len(data)}") if event["msg"] == "process_completed"]
    assert not done["success"], done
    assert "root:" not in json.dumps(done)


def test_a_visitor_reaches_no_other_host_and_no_file(client):
    for path in ("file=http://127.0.0.1:1/", "proxy=http://127.0.0.1:1/", "heartbeat/x", "file=/etc/passwd"):
        assert client.get(f"/ui/gradio_api/{path}").status_code in (403, 404), path


def test_the_page_believes_the_proxy_in_front_of_it(service):
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pictures.example"}
    assert httpx.get(f"{service.url}/ui/config", headers=headers).json()["root"] == "https://pictures.example/ui"
    assert httpx.get(f"{service.url}/ui/config").json()["root"] == f"{service.url}/ui"


def test_visits_give_metrics_no_label_for_each_file(client):
    client.get("/ui/").raise_for_status()
    for number in range(5):
        client.get(f"/ui/gradio_api/file=/tmp/nothing-{number}")
    text = client.get("/metrics").text  # of all visits before this, too
    assert "ray_serve_app_" in text
    assert "gradio_api" not in text
    assert "nothing-" not in text
