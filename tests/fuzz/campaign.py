"""Runs every target, one after the other, and prints what came of it: python -m tests.fuzz.campaign RUNS."""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "fuzz"
TARGETS = tuple(sorted(path.stem for path in (HERE / "targets").glob("*.py")))
OPTIONS = (
    "-max_len=65536",  # what the router reads at once; more goes to another process
    "-timeout=10",  # of one input; tests/fuzz/property.py has the limit that counts
    "-rss_limit_mb=4096",
    "-max_total_time=150",  # so that all targets together end within a quarter of an hour
    "-print_final_stats=1",
)
EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")


@dataclass(frozen=True)
class Outcome:
    """Of one target; `log` is where its output is."""

    target: str
    executions: int
    seconds: float
    inputs: int
    findings: int
    failed: bool
    log: Path


def main() -> None:
    outcomes = [run(target, int(sys.argv[1])) for target in TARGETS]
    print(f"\n{'target':<14}{'executions':>12}{'seconds':>9}{'corpus':>8}{'findings':>10}")
    for one in outcomes:
        print(f"{one.target:<14}{one.executions:>12}{one.seconds:>9.0f}{one.inputs:>8}{one.findings:>10}")
    print(f"{'all':<14}{sum(one.executions for one in outcomes):>12}{sum(one.seconds for one in outcomes):>9.0f}")
    failed = [one for one in outcomes if one.failed]
    for one in failed:
        print(f"error: {one.target} did not hold: {one.log} has the reason and the input", file=sys.stderr)
    sys.exit(bool(failed))


def run(target: str, runs: int) -> Outcome:
    """Inputs of earlier runs come first, also those that were findings: a defect stays one until it is corrected."""
    print(f"{target} …", flush=True)
    seeds, found, findings = HERE / "corpus" / target, BUILD / target / "corpus", BUILD / target / "findings"
    log = BUILD / target / "log"
    for folder in (found, findings):
        folder.mkdir(parents=True, exist_ok=True)
    folders = [str(found), str(seeds), str(findings)]
    command = [sys.executable, "-m", "tests.fuzz.run", target, *folders, *OPTIONS]
    started = time.monotonic()
    with log.open("w") as output:
        ended = subprocess.run(
            [*command, f"-runs={runs}", f"-artifact_prefix={findings}/"], stdout=output, stderr=subprocess.STDOUT
        )
    seconds = time.monotonic() - started
    executed = EXECUTED.search(log.read_text(errors="replace"))
    inputs = sum(len(list(folder.iterdir())) for folder in (seeds, found))
    count = len(list(findings.iterdir())) if ended.returncode else 0
    return Outcome(target, int(executed[1]) if executed else 0, seconds, inputs, count, ended.returncode != 0, log)


if __name__ == "__main__":
    main()
