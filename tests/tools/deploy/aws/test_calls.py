"""Other programs as an installation runs them: shown as they speak, and quoted when they fail."""

import sys

import boto3
import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.calls import Calls


@pytest.fixture
def run():
    calls = Calls(boto3.Session(), lambda line: None)
    return lambda code, given=None: calls.run([sys.executable, "-c", code], given)


def test_a_program_that_fails_is_quoted_by_its_errors(run, capfd):
    with pytest.raises(ConfigurationError, match=r"failed: no rights$"):
        run("import sys; print('trying'); sys.exit('no rights')")
    assert capfd.readouterr() == ("trying\n", "no rights\n")


def test_a_program_that_tells_its_failure_as_output_is_quoted_by_the_last_of_it(run, capfd):
    with pytest.raises(ConfigurationError, match=r"failed: 5\n6\n7\n8\npods are Pending$"):
        run("for n in range(9): print(n)\nprint('pods are Pending'); raise SystemExit(1)")
    assert capfd.readouterr().out.startswith("0\n1\n")


def test_a_program_that_ends_before_it_reads_its_input_is_quoted_too(run):
    with pytest.raises(ConfigurationError, match="failed: unknown flag"):
        run("import sys; sys.stdin.close(); sys.exit('unknown flag')", "x" * 1_000_000)


def test_much_on_both_sides_is_shown_whole(run, capfd):
    run("import sys\nfor n in range(20000): print('out', n); print('err', n, file=sys.stderr)")
    out, err = capfd.readouterr()
    assert (out.count("\n"), err.count("\n")) == (20000, 20000)
