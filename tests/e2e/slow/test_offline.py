"""The served model and vLLM's own offline engine write the same tokens."""

import json
import os
import subprocess
import sys

from tests.e2e.service import DEMO_LLM

IN_ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
OFFLINE = """
import json, sys
from vllm import LLM, SamplingParams
folder, questions = sys.argv[1], json.loads(sys.argv[2])
if __name__ == "__main__":
    engine = LLM(folder, dtype="float32", enforce_eager=True, kv_cache_memory_bytes=64 << 20)
    answers = engine.generate(questions, SamplingParams(temperature=0, max_tokens=200))
    print("TOKENS " + json.dumps([list(one.outputs[0].token_ids) for one in answers]))
"""


def test_it_writes_the_tokens_that_vllm_writes_offline(api, pairs, tmp_path):
    questions = [pair.question for pair in pairs[:10]]
    (tmp_path / "offline.py").write_text(OFFLINE)
    run = subprocess.run(
        [sys.executable, tmp_path / "offline.py", DEMO_LLM, json.dumps(questions)],
        capture_output=True, text=True, timeout=600, env=os.environ | IN_ONE_PROCESS,
    )  # fmt: skip
    lines = [line for line in run.stdout.splitlines() if line.startswith("TOKENS ")]
    assert lines, run.stderr[-2000:]
    answer = api.completions.create(
        model="demo-llm", prompt=questions, temperature=0, max_tokens=200, extra_body={"return_token_ids": True}
    )
    served = [choice.token_ids for choice in sorted(answer.choices, key=lambda one: one.index)]
    assert served == json.loads(lines[0].removeprefix("TOKENS "))
