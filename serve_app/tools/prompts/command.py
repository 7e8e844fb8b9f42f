"""The command line of `scripts/llm_client`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from serve_app.clients.llm.answers import Answer
from serve_app.clients.llm.exchange import Exchange, Plan
from serve_app.clients.llm.messages import Question
from serve_app.errors import InvalidRequestError
from serve_app.tools.arguments import FAILED, INTERRUPTED, Parser, address, end_with, number
from serve_app.tools.prompts.report import Reporter, results_of, summary_of, verdict_of


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    """The letters are those of NVIDIA's own example client."""
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("-m", "--model-name", "--model", default="demo-llm", metavar="NAME", help="model to ask")
    add("-u", "--url", type=address, default="localhost:8001", help="the server's gRPC address")
    add("--input-prompts", default="prompts.txt", metavar="FILE", help="a prompt a line; - is standard input")
    add("--results-file", type=Path, default=Path("results.txt"), metavar="FILE", help="where the answers go")
    add("--iterations", type=number(int, 1), default=1, metavar="N", help="send the whole list that many times")
    add("--offset", type=int, default=0, metavar="N", help="added to the request ids, which count from 0")
    add("--concurrency", type=number(int, 1), metavar="N", help="how many are in flight at once; all without it")
    add("-s", "--streaming-mode", action="store_true", help="have the text sent as it grows")
    add("-t", "--stream-timeout", type=number(float, 0.001), metavar="S", help="seconds the whole run may take")
    add("--max-tokens", type=number(int, 1), default=512, metavar="N", help="tokens an answer may have")
    add("--temperature", type=number(float, 0), default=0.1, metavar="T", help="0 always takes the likeliest")
    add("--top-p", type=number(float, 0, 1), default=0.95, metavar="P", help="share of likelihood to choose from")
    add("-v", "--verbose", action="store_true", help="show the text as it arrives")
    return parser.parse_args(arguments)


def plan_of(options: argparse.Namespace) -> Plan:
    # Strings, as the clients that came before this one send them: servers read both.
    sampling = {name: f"{getattr(options, name):g}" for name in ("temperature", "top_p")}
    question = Question(options.model_name, options.streaming_mode, sampling | {"max_tokens": str(options.max_tokens)})
    return Plan(options.url, question, options.concurrency, options.stream_timeout)


def read_prompts(source: str) -> list[str]:
    try:
        text = (sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8"
        raise InvalidRequestError(f"prompts can't be read from `{source}`: {reason}") from None
    prompts = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not prompts:
        raise InvalidRequestError(f"there are no prompts in `{source}`")
    return prompts


def require_writable(results: Path) -> None:
    """Before anything is sent: answers that can't be stored would be lost."""
    if results.is_dir():
        raise InvalidRequestError(f"results can't be stored into `{results}`: it is a folder")
    if not os.access(results if results.exists() else results.parent, os.W_OK):
        raise InvalidRequestError(f"results can't be stored into `{results}`: no such folder, or not writable")


def numbered(prompts: Sequence[str], iterations: int, offset: int) -> list[Answer]:
    return [Answer(offset + index, prompt) for index, prompt in enumerate([*prompts] * iterations)]


def ask(exchange: Exchange, reporter: Reporter) -> bool:
    """Whether it came to its end by itself."""
    try:
        with reporter:
            asyncio.run(exchange.run())
    except KeyboardInterrupt:
        return False
    return True


def store(results: Path, answers: Sequence[Answer]) -> None:
    print(f"Storing results into `{results}`...", flush=True)
    results.write_text(results_of(answers), encoding="utf-8")


def run(options: argparse.Namespace) -> int:
    plan = plan_of(options)
    require_writable(options.results_file)
    print(f"Loading inputs from `{options.input_prompts}`...", flush=True)
    answers = numbered(read_prompts(options.input_prompts), options.iterations, options.offset)
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    reporter = Reporter(plan.question, len(answers), console, options.verbose)
    exchange = Exchange(plan, answers, reporter)
    finished = ask(exchange, reporter)
    if exchange.started_at_s is None:
        return INTERRUPTED  # before anything was sent: the file keeps what it has
    store(options.results_file, answers)
    wall_s = exchange.wall_s
    print(f"Total time for all requests: {wall_s:.2f} seconds ({wall_s * 1000:.2f} milliseconds)")
    print("\n".join([*summary_of(plan.question, answers, wall_s), *verdict_of(answers)]), flush=True)
    if not finished:
        return INTERRUPTED
    return FAILED if any(answer.error is not None for answer in answers) else 0


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))
