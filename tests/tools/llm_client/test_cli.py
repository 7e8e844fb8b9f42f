"""`scripts/llm_client` as a person runs it: options, lines, files and exit statuses."""

import io
import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from serve_app.clients.llm.answer import Answer
from serve_app.clients.llm.stream import StreamOptions
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.llm_client.cli import main
from serve_app.tools.llm_client.report import Progress, format_line, format_results, format_summary, format_verdict

SEPARATOR = "\n\n=========\n\n"
STREAMED, WHOLE = StreamOptions("host:1", "demo-llm", True), StreamOptions("host:1", "demo-llm", False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("What?\n\n  \nWhy?\n")
    return tmp_path


@pytest.fixture
def command(capsys):
    """Runs the command; returns its exit status, standard output and standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main("Ask.", list(arguments))
        return ended.value.code, *capsys.readouterr()

    return run


def answered(number, *texts, error=None):
    """Sent at 10 s; one text each 0.1 s."""
    answer = Answer(number, "Why?", sent_at_s=10.0)
    for position, text in enumerate(texts, 1):
        answer.update(text, 10 + position / 10)
    answer.end(20.0, error)
    return answer


def test_the_output_is_that_of_nvidias_example_client(fake, folder, command):
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
    assert (folder / "results.txt").read_text() == f"What? Yes.{SEPARATOR}Why? Yes.{SEPARATOR}"


def test_streaming_prints_first_and_last_token_and_stores_whole_texts(fake, folder, command):
    fake.script = lambda requests, _: (part for request in requests for part in fake.grow(request, " a", " b"))
    status, out, _ = command("-u", fake.url, "-s", "-v", "--results-file", "mine.txt")
    assert status == 0
    assert re.search(r"Request 1: first token \d+\.\d ms, last token \d+\.\d ms, 2 chunks\n", out)
    assert re.search(r"time to first token   p50 \d+\.\d ms, p95 \d+\.\d ms, max \d+\.\d ms\n", out)
    assert "Request 0 + ' a'\n" in out
    assert "Request 0 + ' b'\n" in out
    assert (folder / "mine.txt").read_text() == f"What? a b{SEPARATOR}Why? a b{SEPARATOR}"


@pytest.mark.usefixtures("folder")
def test_options_reach_the_model(fake, command, monkeypatch):
    options = ("--iterations", "3", "--offset", "100", "--max-tokens", "8", "--temperature", "0", "--top-p", "0.5")
    assert command("-u", fake.url, "-t", "10", "-m", "demo-llm", *options)[0] == 0
    assert [message.id for message in fake.messages] == [str(number) for number in range(100, 106)]
    assert [fake.prompt(message) for message in fake.messages] == ["What?", "Why?"] * 3
    sampling = json.loads(fake.messages[0].raw_input_contents[2][4:])
    assert sampling == {"temperature": "0", "top_p": "0.5", "max_tokens": "8"}
    fake.messages.clear()
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
    assert Path("results.txt").read_text() == f"ERROR: prompt too long{SEPARATOR}Fine.{SEPARATOR}"


def test_a_missing_server_or_model_is_one_line_and_keeps_old_results(fake, unreachable, folder, command):
    (folder / "results.txt").write_text("old")
    status, out, err = command("-u", unreachable)
    assert (status, out) == (1, "Loading inputs from `prompts.txt`...\n")
    assert re.fullmatch(rf"error: {unreachable} is unavailable: .*\n", err)
    assert (folder / "results.txt").read_text() == "old"
    status, _, err = command("-u", fake.url, "--model-name", "nope")
    assert (status, err) == (1, "error: unknown model: 'nope'\n")


def test_wrong_usage_is_one_line_and_status_2(fake, folder, command):
    (folder / "blank.txt").write_text("\n \n")
    (folder / "latin.txt").write_bytes(b"\xd6l?\n")
    for arguments, message in (
        (["--input-prompts", "none.txt"], "can't read prompts from `none.txt`: No such file or directory"),
        (["--input-prompts", "."], "can't read prompts from `.`: Is a directory"),
        (["--input-prompts", "latin.txt"], "can't read prompts from `latin.txt`: not UTF-8"),
        (["--input-prompts", "blank.txt"], "`blank.txt` has no prompts"),
        (["--results-file", "."], "can't write results to `.`: it is a folder"),
        (["--results-file", "no/r.txt"], "can't write results to `no/r.txt`: no such folder, or not writable"),
        (["-u", "http://h:8001"], "argument -u/--url: 'http://h:8001' is not HOST:PORT, as in localhost:8001"),
        (["--url", "localhost"], "argument -u/--url: 'localhost' is not HOST:PORT, as in localhost:8001"),
        (["--url", "h:99999"], "argument -u/--url: 'h:99999' is not HOST:PORT, as in localhost:8001"),
        (["--iterations", "0"], "argument --iterations: 0 is not at least 1"),
        (["--iterations", "x"], "argument --iterations: invalid int value: 'x'"),
        (["--concurrency", "0"], "argument --concurrency: 0 is not at least 1"),
        (["--stream-timeout", "inf"], "argument -t/--stream-timeout: inf is not at least 0.001"),
        (["--top-p", "nan"], "argument --top-p: nan is not from 0 to 1"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ):
        status, _, err = command("--url", fake.url, *arguments)
        assert (status, err) == (2, f"error: {message}\n")
    assert fake.messages == []


def test_ctrl_c_stores_the_answers_that_have_arrived(fake, folder):
    def script(requests, context):
        yield fake.answer(next(requests), "Fine.")
        yield fake.answer(next(requests), "Why? half", final=False)
        context.add_callback(ended.set)
        ended.wait(60)

    ended = threading.Event()
    fake.script = script
    client = subprocess.Popen(
        # the parent may ignore SIGINT, as `nohup make test &` does, and children inherit it
        ["env", "--default-signal=INT", sys.executable, PROJECT_ROOT / "scripts" / "llm_client", "-u", fake.url, "-sv"],
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
    assert (folder / "results.txt").read_text() == f"Fine.{SEPARATOR}ERROR: interrupted\nWhy? half{SEPARATOR}"


def test_the_example_prompts_are_five_questions():
    prompts = (PROJECT_ROOT / "docs" / "prompts.txt").read_text().splitlines()
    assert len(prompts) == 5
    assert "What is serve_app?" in prompts
    assert all(prompt.endswith("?") for prompt in prompts)


def test_a_line_describes_one_answer():
    for request, answer, line in (
        (STREAMED, answered(3, "Why? a", "Why? ab"), "3: first token 100.0 ms, last token 200.0 ms, 2 chunks"),
        (WHOLE, answered(3, "Why? abcd"), "3: whole answer 100.0 ms, 5 characters (50.0/s)"),
        (STREAMED, answered(2, "Why?"), "2: no new text, after 10000.0 ms"),
        (STREAMED, answered(1, error="full"), "1: ERROR: full"),
    ):
        assert format_line(request, answer) == f"Model demo-llm - Request {line}"
    answers = [answered(0, "Why? a", "Why? ab"), answered(1, error="full"), answered(2, "Why? c", error="cut")]
    assert format_results(answers) == f"Why? ab{SEPARATOR}ERROR: full{SEPARATOR}ERROR: cut\nWhy? c{SEPARATOR}"


def test_the_summary_leaves_failed_requests_out_of_its_times():
    answers = [answered(0, "Why? a", "Why? ab"), answered(1, "Why? a", "Why? a", "Why? abc"), answered(2, error="no")]
    assert format_summary(STREAMED, answers, 2.0) == [
        "  requests              3",
        "  failed                1",
        "  wall time             2.00 s",
        "  time to first token   p50 100.0 ms, p95 100.0 ms, max 100.0 ms",
        "  time to last token    p50 250.0 ms, p95 295.0 ms, max 300.0 ms",
        "  received              4 chunks (2.0/s); responses with new text, one per generation step",
        "  generated             7 characters (3.5/s)",
    ]
    assert format_summary(WHOLE, [answered(0, "Why? a")], 0.5)[3:] == [
        "  time to whole answer  p50 100.0 ms, p95 100.0 ms, max 100.0 ms",
        "  generated             2 characters (4.0/s); tokens are counted only with --streaming-mode",
    ]
    assert "  time to first token   -" in format_summary(STREAMED, [answered(0, error="no")], 1.0)


def test_the_verdict_passes_without_failures_and_else_counts_the_first_reasons():
    assert format_verdict([answered(0, "Why? a")]) == ["PASS: vLLM example"]
    reasons = ["full", "late", "full", "cut", "odd", "off"]
    assert format_verdict([answered(0, "Why? a"), *(answered(1, error=reason) for reason in reasons)]) == [
        "FAIL: 6 of 7 requests failed", "  2 × full", "  1 × late", "  1 × cut",
        "  and 2 other reasons, in the results",
    ]  # fmt: skip


def test_only_a_terminal_gets_a_progress_bar():
    for terminal in (True, False):
        seen = io.StringIO()
        console = Console(file=seen, force_terminal=terminal, markup=False, highlight=False, width=100)
        with Progress(STREAMED, 2, console, verbose=True) as progress:
            progress.on_text(Answer(4, "Why?"), " [red] so\n")
            progress.on_end(answered(0, "Why? [bold]a"))
        assert "Request 4 + ' [red] so\\n'\n" in seen.getvalue()
        assert "Model demo-llm - Request 0: first token 100.0 ms, last token 100.0 ms, 1 chunk" in seen.getvalue()
        assert ("1/2" in seen.getvalue()) is terminal
