"""Programs that an installation runs: their output is passed on, and quoted when they fail."""

import re
import sys

import boto3
import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.runner import Runner


def run(code, stdin=None):
    Runner(boto3.Session(), lambda line: None).run([sys.executable, "-c", code], stdin)


def test_a_failed_program_is_quoted_by_its_errors_else_by_its_last_output():
    for code, stdin, quoted in (
        ("import sys; print('trying'); sys.exit('no rights')", None, "no rights"),
        ("for n in range(9): print(n)\nprint('Pending'); raise SystemExit(1)", None, "5\n6\n7\n8\nPending"),
        ("raise SystemExit(3)", None, "exit status 3"),
        ("import sys; sys.stdin.close(); sys.exit('unknown flag')", "x" * 1_000_000, "unknown flag"),
    ):
        with pytest.raises(ConfigurationError, match=rf"failed: {re.escape(quoted)}$"):
            run(code, stdin)


def test_output_and_errors_are_passed_on_in_full(capfd):
    run("import sys\nfor n in range(20000): print('out', n); print('err', n, file=sys.stderr)")
    out, err = capfd.readouterr()
    assert (out.count("\n"), err.count("\n")) == (20000, 20000)
