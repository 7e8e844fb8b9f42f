"""`scripts/llm_client` as a person runs it: options, lines, files and exit statuses."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve_app.tools.prompts.command import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("What?\n\n  \nWhy?\n")
    return tmp_path


@pytest.fixture
def command(capsys):
    """Gives the exit status and what was printed on both ways."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main("Ask.", list(arguments))
        return ended.value.code, *capsys.readouterr()

    return run


def test_it_answers_as_the_client_before_it_did(fake, folder, command):
    status, out, err = command("--url", fake.url)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0] == "Loading inputs from `prompts.txt`..."
    request = r"Model demo-llm - Request (\d): whole answer \d+\.\d ms, 5 characters \(\d+\.\d/s\)"
    assert [re.fullmatch(request, line)[1] for line in lines[1:3]] == ["0", "1"]
    assert lines[3] == "Storing results into `results.txt`..."
    total = re.fullmatch(r"Total time for all requests: (\d+\.\d\d) seconds \((\d+\.\d\d) milliseconds\)", lines[4])
    assert float(total[1]) == pytest.approx(float(total[2]) / 1000, abs=0.006)
    assert lines[5:7] == ["  requests              2", "  failed                0"]
    assert lines[-1] == "PASS: vLLM example"
    assert (folder / "results.txt").read_text() == "What? Yes.\n\n=========\n\nWhy? Yes.\n\n=========\n\n"


def test_a_stream_tells_first_and_last_token_and_stores_whole_texts_only(fake, folder, command):
    def script(requests, _):
        for request in requests:
            yield from fake.grow(request, " a", " b", pause_s=0.05)

    fake.script = script
    status, out, _ = command("-u", fake.url, "-s", "-v", "--results-file", "mine.txt")
    assert status == 0
    assert re.search(r"Request 1: first token \d+\.\d ms, last token \d+\.\d ms, 2 chunks\n", out)
    assert re.search(r"time to first token   p50 \d+\.\d ms, p95 \d+\.\d ms, max \d+\.\d ms\n", out)
    assert "Request 0 + ' a'\nRequest 0 + ' b'\n" in out
    assert (folder / "mine.txt").read_text() == "What? a b\n\n=========\n\nWhy? a b\n\n=========\n\n"


@pytest.mark.usefixtures("folder")
def test_iterations_repeat_the_list_and_the_offset_moves_the_ids(fake, command):
    assert command("-u", fake.url, "--iterations", "3", "--offset", "100")[0] == 0
    assert [message.id for message in fake.messages] == [str(number) for number in range(100, 106)]
    assert [fake.prompt(message) for message in fake.messages] == ["What?", "Why?"] * 3
    assert len(Path("results.txt").read_text().split("\n=========\n\n")) == 7


@pytest.mark.usefixtures("folder")
def test_options_of_sampling_reach_the_fake_model_as_strings(fake, command):
    options = ("--max-tokens", "8", "--temperature", "0", "--top-p", "0.5", "-m", "demo-llm", "-t", "10")
    assert command("-u", fake.url, *options)[0] == 0
    sampling = json.loads(fake.messages[0].raw_input_contents[2][4:])
    assert sampling == {"temperature": "0", "top_p": "0.5", "max_tokens": "8"}


@pytest.mark.usefixtures("folder")
def test_prompts_may_come_from_standard_input(fake, command, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Who?\r\n\nWo ist Öl? ".encode())))
    assert command("-u", fake.url, "--input-prompts", "-")[0] == 0
    assert [fake.prompt(message) for message in fake.messages] == ["Who?", "Wo ist Öl? "]


@pytest.mark.usefixtures("folder")
def test_a_failed_request_is_counted_with_its_reason(fake, command):
    fake.script = lambda requests, _: (
        fake.failure(request, "prompt too long") if request.id == "0" else fake.answer(request, "Fine.")
        for request in requests
    )
    status, out, _ = command("-u", fake.url)
    assert status == 1
    assert "Model demo-llm - Request 0: ERROR: prompt too long\n" in out
    assert out.endswith("FAIL: 1 of 2 requests failed\n  1 × prompt too long\n")
    assert Path("results.txt").read_text() == "ERROR: prompt too long\n\n=========\n\nFine.\n\n=========\n\n"


def test_an_unreachable_server_is_one_line_and_leaves_old_results(unreachable, folder, command):
    (folder / "results.txt").write_text("old")
    status, out, err = command("-u", unreachable)
    assert (status, out) == (1, "Loading inputs from `prompts.txt`...\n")
    assert re.fullmatch(rf"error: {unreachable} is unavailable: .*\n", err)
    assert (folder / "results.txt").read_text() == "old"


@pytest.mark.usefixtures("folder")
def test_an_unknown_model_is_one_line(fake, command):
    status, _, err = command("-u", fake.url, "--model-name", "nope")
    assert (status, err) == (1, "error: unknown model: 'nope'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-prompts", "none.txt"], "prompts can't be read from `none.txt`: No such file or directory"),
        (["--input-prompts", "."], "prompts can't be read from `.`: Is a directory"),
        (["--input-prompts", "blank.txt"], "there are no prompts in `blank.txt`"),
        (["--input-prompts", "latin.txt"], "prompts can't be read from `latin.txt`: not UTF-8"),
        (["--results-file", "."], "results can't be stored into `.`: it is a folder"),
        (["--results-file", "no/r.txt"], "results can't be stored into `no/r.txt`: no such folder, or not writable"),
        (["--url", "http://localhost:8001"], "argument -u/--url: 'http://localhost:8001' is not HOST:PORT, as in "
         "localhost:8001"),
        (["--url", "localhost"], "argument -u/--url: 'localhost' is not HOST:PORT, as in localhost:8001"),
        (["--url", "h:99999"], "argument -u/--url: 'h:99999' is not HOST:PORT, as in localhost:8001"),
        (["--iterations", "0"], "argument --iterations: 0 is not at least 1"),
        (["--iterations", "x"], "argument --iterations: invalid int value: 'x'"),
        (["--concurrency", "0"], "argument --concurrency: 0 is not at least 1"),
        (["--stream-timeout", "0"], "argument -t/--stream-timeout: 0 is not at least 0.001"),
        (["--stream-timeout", "inf"], "argument -t/--stream-timeout: inf is not at least 0.001"),
        (["--top-p", "nan"], "argument --top-p: nan is not from 0 to 1"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_status_2(arguments, message, fake, folder, command):
    (folder / "blank.txt").write_text("\n \n")
    (folder / "latin.txt").write_bytes(b"\xd6l?\n")
    status, _, err = command("--url", fake.url, *arguments)
    assert (status, err) == (2, f"error: {message}\n")
    assert fake.messages == []


def test_ctrl_c_stores_what_has_come(fake, folder):
    def script(requests, context):
        yield fake.answer(next(requests), "Fine.")
        yield fake.answer(next(requests), "Why? half", final=False)
        while context.is_active():
            time.sleep(0.05)

    fake.script = script
    client = subprocess.Popen(
        # a suite that runs in the background hands on an ignored SIGINT
        ["env", "--default-signal=INT", sys.executable, ROOT / "scripts" / "llm_client", "-u", fake.url, "-s", "-v"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while " half" not in (line := client.stdout.readline()):
            assert line, client.communicate()
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=20)
    finally:
        client.kill()
    assert (client.returncode, err) == (130, "")
    assert out.endswith("FAIL: 1 of 2 requests failed\n  1 × interrupted\n")
    stored = (folder / "results.txt").read_text()
    assert stored == "Fine.\n\n=========\n\nERROR: interrupted\nWhy? half\n\n=========\n\n"


def test_the_example_prompts_are_five_questions():
    prompts = (ROOT / "docs" / "prompts.txt").read_text().splitlines()
    assert len(prompts) == 5
    assert "What is serve_app?" in prompts
    assert all(prompt.endswith("?") for prompt in prompts)
