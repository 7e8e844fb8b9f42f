"""The process of an engine is forked from one that has imported vLLM, with the environment of its replica by then."""

import os
import subprocess
import sys

START = """
import json
import multiprocessing
import os
import sys
import time

from serve_app.llm import engine_process


def engine(report, dp_rank):
    report.send((os.environ["SEEN"], os.getppid(), "colorsys" in sys.modules, dp_rank))
    time.sleep(600)


if __name__ == "__main__":
    engine_process.MODULES[:] = ["colorsys"]  # in place of vLLM's, which take ten seconds
    os.environ["SEEN"] = "when the import began"
    engine_process.begin_import()
    os.environ["SEEN"] = "when the engine began"
    context = engine_process.EngineContext()
    here, there = context.Pipe()
    process = context.Process(target=engine, name="EngineCore", kwargs={"report": there, "dp_rank": 3})
    process.start()
    seen, parent, imported, rank = here.recv()
    os.kill(process.pid, 9)
    process.join()
    print(json.dumps([seen, parent != os.getpid(), imported, rank, process.exitcode]))
"""


def test_an_engine_starts_with_what_was_imported_and_says_how_it_ended(tmp_path):
    script = tmp_path / "start.py"
    script.write_text(START)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    ran = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == '["when the engine began", true, true, 3, -9]', ran.stderr
