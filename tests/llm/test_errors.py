"""Errors of vLLM become serve_app's, and the reason of a failed start is found in logs as vLLM writes them."""

import os

import pytest
from fastapi import HTTPException
from vllm.exceptions import QueueOverflowError, VLLMNotFoundError, VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from serve_app.errors import InvalidRequestError, ModelError, NotFoundError, UnavailableError
from serve_app.llm import errors
from serve_app.llm.errors import TAIL_BYTES, startup_reason, stderr_size, translate_errors

FAILED = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
STAMP = "ERROR 11-21 15:53:21 [core.py:1374] "
ENGINE = "EngineCore pid=12"


def test_errors_of_vllm_become_ours_without_internals():
    for problem, kind, message in (
        (EngineDeadError(), UnavailableError, "the engine of model 'm' died; try again"),
        (VLLMValidationError("too long", parameter="prompt"), InvalidRequestError, "too long (parameter=prompt)"),
        (VLLMNotFoundError("no such thing"), InvalidRequestError, "no such thing"),
        (ValueError("can't be"), InvalidRequestError, "can't be"),
        (OverflowError("can't serialize ints > 2**64 - 1"), InvalidRequestError, "can't serialize ints"),
        (TimeoutError("internals"), ModelError, "model 'm' failed: TimeoutError; see the replica's log"),
        (EngineGenerateError("internals"), ModelError, "model 'm' failed: EngineGenerateError; see the replica's log"),
        (QueueOverflowError(), UnavailableError, "model 'm' is busy: "),
        (HTTPException(404, "no adapter in s3://bucket/x"), NotFoundError, "model 'm' has no such adapter"),
        (HTTPException(500, "s3://bucket/x"), ModelError, "model 'm' failed with status 500"),
        (NotFoundError("as it was"), NotFoundError, "as it was"),
    ):
        with pytest.raises(kind) as caught, translate_errors("m"):
            raise problem
        assert type(caught.value) is kind
        assert caught.value.message.startswith(message)
        assert "s3://" not in caught.value.message


def logged(*lines, process=ENGINE):
    """As vLLM's logger writes a message of several lines: carriage returns, and its process before each line."""
    return f"({process}) " + f"\r\n({process}) ".join(STAMP + line for line in lines) + "\n"


def printed(*lines, process=ENGINE):
    return "".join(f"({process}) {line}\n" for line in lines)


def failure(error, process=ENGINE):
    """One error written twice: by the logger, and by the process that ends with it."""
    trace = ("Traceback (most recent call last):", '  File "/core.py", line 1, in run', "    raise ValueError(what)")
    lines = (*trace, *error.split("\n"))
    return logged("EngineCore failed to start.", *lines, process=process) + printed(
        "Process EngineCore:", *lines, process=process
    )


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "replica.err"
    path.touch()
    monkeypatch.setattr(errors, "STDERR", path)
    return path


def reason(log_start=0, own=FAILED):
    return startup_reason(RuntimeError(own), log_start)


def test_the_error_that_the_engines_process_logged_is_the_reason(log):
    for error, expected in (
        ("ValueError: no KV cache is left; raise it", "no KV cache is left; raise it"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB", "CUDA out of memory. Tried 2 GiB"),
        ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error: x", "404 Client Error: x"),
        ("KeyError: 'model.embed_tokens.weight'", "'model.embed_tokens.weight'"),
        ("Exception: plain", "plain"),
        ("AssertionError: loss of [brackets] (and parentheses)", "loss of [brackets] (and parentheses)"),
        ("ValueError:   a\tb   c ", "a b c"),
        ("ImportError: \nLlavaProcessor requires the PIL library", "LlavaProcessor requires the PIL library"),
    ):
        for process in (ENGINE, "EngineCore_DP0 pid=7", "Worker_TP1 pid=3"):
            log.write_text("INFO starting\n" + failure(error, process))
            assert reason() == expected
            lines = ("Traceback (most recent call last):", *error.split("\n"))
            log.write_text(printed(*lines, process=process))
            assert reason() == expected


def test_the_last_error_that_is_no_consequence_of_another_is_the_reason(log):
    worker = "WorkerProc initialization failed due to an exception in a background process."
    for text, expected in (
        (failure("KeyError: 'first'") + failure("ValueError: the last"), "the last"),
        (
            failure("RuntimeError: CUDA error: no kernel image", "Worker_TP0 pid=3")
            + failure(f"Exception: {worker} See stack trace for root cause.")
            + failure(f"RuntimeError: {FAILED}"),
            "CUDA error: no kernel image",
        ),
        (
            failure("ValueError: the reason")
            + printed("Exception ignored in: <function Runner.__del__ at 0x7f>", "Traceback (most recent call last):")
            + printed("AttributeError: 'Runner' object has no attribute 'pool'"),
            "the reason",
        ),
    ):
        log.write_text(text)
        assert reason() == expected


def test_without_an_error_of_the_engine_the_exception_is_the_reason(log):
    for text in ("", "RuntimeError: of the replica itself\n", "(APIServer pid=1) ValueError: no\n"):
        log.write_text(text)
        assert reason() == FAILED
    log.write_text(failure("ValueError: of something else"))
    own = "Failed to create vLLM engine config:\n  dtype float8"
    assert reason(own=own) == "Failed to create vLLM engine config: dtype float8"
    for problem, expected in (
        (ValueError(), "ValueError"),
        (TimeoutError(" \n"), "TimeoutError"),
        (KeyError("a"), "'a'"),
    ):
        assert startup_reason(problem, 0) == expected


def test_only_this_start_and_the_end_of_a_long_log_are_read(log):
    log.write_text(failure("ValueError: of an earlier start"))
    start = stderr_size()
    assert (start, reason(start)) == (log.stat().st_size, FAILED)
    with log.open("a") as more:
        more.write(failure("ValueError: of this start"))
    assert reason(start) == "of this start"
    assert reason(10**9) == FAILED, "the log was truncated"
    log.write_text(failure("ValueError: early") + "x" * TAIL_BYTES)
    assert reason() == FAILED
    log.write_text("ü" * TAIL_BYTES + "\n" + failure("ValueError: late"))
    assert reason() == "late"


@pytest.mark.timeout(10)
def test_any_log_is_read_quickly_even_with_bytes_that_are_no_text(log):
    log.write_bytes(b"\xff\xfe\x00" + failure("ValueError: the reason").encode() + b"\xc3")
    assert reason() == "the reason"
    for noise in ("(EngineCore " * 2000, "(EngineCore pid=1) " + "a." * 50_000 + "aError", "Error: " * 9999):
        log.write_text(noise + "\n" + failure("ValueError: the reason"))
        assert reason() == "the reason"


def test_a_stderr_that_is_no_file_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "STDERR", tmp_path / "closed")
    assert (stderr_size(), reason()) == (0, FAILED)
    reader, writer = os.pipe()
    os.write(writer, failure("ValueError: unread").encode())
    monkeypatch.setattr(errors, "STDERR", type(tmp_path)(f"/proc/self/fd/{writer}"))
    assert (stderr_size(), reason()) == (0, FAILED)
    assert os.read(reader, 1) == b"("
    os.close(reader)
    os.close(writer)
