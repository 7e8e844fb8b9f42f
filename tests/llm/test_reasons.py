"""Why an engine didn't start, found in logs as vLLM writes them."""

import os

import pytest

from serve_app.llm import reasons
from serve_app.llm.reasons import TAIL_BYTES, log_position, reason_of

FOLLOWS = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
STAMP = "ERROR 11-21 15:53:21 [core.py:1374] "


def logged(*lines, process="EngineCore pid=12"):
    """As vLLM's logger writes one message of several lines: carriage returns, and its process before the first."""
    return f"({process}) " + f"\r\n({process}) ".join(STAMP + line for line in lines) + "\n"


def printed(*lines, process="EngineCore pid=12"):
    return "".join(f"({process}) {line}\n" for line in lines)


def failure(error, process="EngineCore pid=12"):
    """One error told twice: by the logger, and by the process that ends with it."""
    trace = ("Traceback (most recent call last):", '  File "/core.py", line 1, in run', "    raise ValueError(what)")
    return logged("EngineCore failed to start.", *trace, *error.split("\n"), process=process) + printed(
        "Process EngineCore:", *trace, *error.split("\n"), process=process
    )


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "replica.err"
    path.touch()
    monkeypatch.setattr(reasons, "STDERR", path)
    return path


def reason(since=0, own=FOLLOWS):
    return reason_of(RuntimeError(own), since)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("ValueError: no KV cache is left; raise gpu_memory_utilization", "no KV cache is left; raise gpu_memory_"),
        ("OSError: Can't load tokenizer for 'a/b': 404", "Can't load tokenizer for 'a/b': 404"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB", "CUDA out of memory. Tried 2 GiB"),
        ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error: x", "404 Client Error: x"),
        ("safetensors_rust.SafetensorError: header too large", "header too large"),
        ("KeyError: 'model.embed_tokens.weight'", "'model.embed_tokens.weight'"),
        ("Exception: plain", "plain"),
        ("AssertionError: loss of [brackets] (and parentheses)", "loss of [brackets] (and parentheses)"),
    ],
)
@pytest.mark.parametrize("process", ["EngineCore pid=12", "EngineCore_DP0 pid=7", "Worker_TP1 pid=3"])
def test_what_the_engines_process_said_is_the_reason(log, error, expected, process):
    log.write_text("INFO starting\n" + failure(error, process))
    assert reason().startswith(expected)
    log.write_text(printed("Traceback (most recent call last):", error, process=process))
    assert reason().startswith(expected)


@pytest.mark.parametrize("text", ["", "RuntimeError: of the replica itself\n", "(APIServer pid=1) ValueError: no\n"])
def test_without_a_word_of_the_engine_the_error_tells_itself(log, text):
    log.write_text(text)
    assert reason() == FOLLOWS


def test_an_error_that_is_no_consequence_tells_itself_whatever_the_log_says(log):
    log.write_text(failure("ValueError: of something else"))
    assert reason(own="Failed to create vLLM engine config:\n  dtype float8") == (
        "Failed to create vLLM engine config: dtype float8"
    )


@pytest.mark.parametrize(
    ("problem", "expected"),
    [(ValueError(), "ValueError"), (TimeoutError(" \n"), "TimeoutError"), (KeyError("a"), "'a'")],
)
def test_an_error_without_words_is_called_by_its_name(log, problem, expected):
    assert reason_of(problem, log_position()) == expected


def test_errors_that_follow_from_another_are_not_the_reason(log):
    worker = (
        "WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."
    )
    log.write_text(
        failure("RuntimeError: CUDA error: no kernel image", "Worker_TP0 pid=3")
        + failure(f"Exception: {worker}")
        + failure(f"RuntimeError: {FOLLOWS}")
    )
    assert reason() == "CUDA error: no kernel image"


def test_of_several_errors_the_last_counts(log):
    log.write_text(failure("KeyError: 'first'") + failure("ValueError: the one that ended it"))
    assert reason() == "the one that ended it"


def test_what_was_logged_before_the_start_is_another_starts(log):
    log.write_text(failure("ValueError: of the start before"))
    began = log_position()
    assert began == log.stat().st_size
    assert reason(began) == FOLLOWS
    with log.open("a") as more:
        more.write(failure("ValueError: of this start"))
    assert reason(began) == "of this start"


def test_only_the_end_of_a_long_log_is_read(log):
    log.write_text(failure("ValueError: early") + "x" * TAIL_BYTES)
    assert reason() == FOLLOWS
    log.write_text("ü" * TAIL_BYTES + "\n" + failure("ValueError: late"))
    assert reason() == "late"


def test_a_log_that_was_cut_meanwhile_has_nothing_to_tell(log):
    log.write_text(failure("ValueError: short"))
    assert reason(since=10**9) == FOLLOWS


def test_bytes_that_are_no_text_do_not_hide_the_reason(log):
    log.write_bytes(b"\xff\xfe\x00" + failure("ValueError: the reason").encode() + b"\xc3")
    assert reason() == "the reason"


def test_where_the_log_is_no_file_the_error_tells_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(reasons, "STDERR", tmp_path / "closed")
    assert (log_position(), reason()) == (0, FOLLOWS)
    reader, writer = os.pipe()
    os.write(writer, failure("ValueError: nobody may read it").encode())
    monkeypatch.setattr(reasons, "STDERR", type(tmp_path)(f"/proc/self/fd/{writer}"))
    assert (log_position(), reason()) == (0, FOLLOWS)
    assert os.read(reader, 1) == b"("
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    "noise", ["(EngineCore " * 2000, "(EngineCore pid=1) " + "a." * 50_000 + "aError", "Error: " * 9999]
)
@pytest.mark.timeout(10)
def test_a_log_of_any_shape_is_read_in_a_moment(log, noise):
    log.write_text(noise + "\n" + failure("ValueError: the reason"))
    assert reason() == "the reason"


def test_a_message_that_begins_on_the_next_line_is_found(log):
    log.write_text(failure("ImportError: \nLlavaProcessor requires the PIL library but it was not found."))
    assert "LlavaProcessor requires the PIL library" in reason()


def test_it_stays_one_line(log):
    log.write_text(failure("ValueError:   a\tb   c "))
    assert reason() == "a b c"


def test_an_exception_that_python_ignored_is_not_the_reason(log):
    log.write_text(
        failure("ValueError: the reason")
        + printed("Exception ignored in: <function Runner.__del__ at 0x7f>", "Traceback (most recent call last):")
        + printed("AttributeError: 'Runner' object has no attribute 'pool'")
    )
    assert reason() == "the reason"
