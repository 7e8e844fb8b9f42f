"""The command line of `scripts/llm_client`."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from rich.console import Console

from serve_app.clients.llm.answer import Answer
from serve_app.clients.llm.stream import Callbacks, PromptStream, StreamOptions
from serve_app.errors import InvalidRequestError
from serve_app.tools.arguments import FAILED, INTERRUPTED, Parser, address, api_key, end_with, number
from serve_app.tools.llm_client.report import Progress, format_results, format_summary, format_verdict


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    """The short options are those of NVIDIA's example client."""
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("-m", "--model-name", "--model", default="demo-llm", metavar="NAME", help="model to prompt")
    add("-u", "--url", type=address, default="localhost:8001", help="gRPC address of the server")
    add("--input-prompts", default="prompts.txt", metavar="FILE", help="one prompt per line; - is standard input")
    add("--results-file", type=Path, default=Path("results.txt"), metavar="FILE", help="file for the answers")
    add("--iterations", type=number(int, 1), default=1, metavar="N", help="send all prompts N times")
    add("--offset", type=int, default=0, metavar="N", help="added to the request ids, which start at 0")
    add("--concurrency", type=number(int, 1), metavar="N", help="requests in flight at most; unlimited without it")
    add("-s", "--streaming-mode", action="store_true", help="receive the text while it is generated")
    add("-t", "--stream-timeout", type=number(float, 0.001), metavar="S", help="seconds the whole run may take")
    add("--max-tokens", type=number(int, 1), default=512, metavar="N", help="tokens of an answer at most")
    add("--temperature", type=number(float, 0), default=0.1, metavar="T", help="0 always takes the likeliest token")
    add("--top-p", type=number(float, 0, 1), default=0.95, metavar="P", help="share of probability to sample from")
    add("-v", "--verbose", action="store_true", help="print the text as it arrives")
    return parser.parse_args(arguments)


def stream_options(options: argparse.Namespace) -> StreamOptions:
    # Strings, because NVIDIA's example client sends strings; servers accept both.
    sampling = {name: f"{getattr(options, name):g}" for name in ("temperature", "top_p")}
    sampling["max_tokens"] = str(options.max_tokens)
    limits = (options.concurrency, options.stream_timeout)
    return StreamOptions(options.url, options.model_name, options.streaming_mode, sampling, *limits, api_key())


def read_prompts(source: str) -> list[str]:
    try:
        text = (sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8"
        raise InvalidRequestError(f"can't read prompts from `{source}`: {reason}") from None
    prompts = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not prompts:
        raise InvalidRequestError(f"`{source}` has no prompts")
    return prompts


def require_writable(results: Path) -> None:
    """Before anything is sent, since answers that can't be stored are lost."""
    if results.is_dir():
        raise InvalidRequestError(f"can't write results to `{results}`: it is a folder")
    if not os.access(results if results.exists() else results.parent, os.W_OK):
        raise InvalidRequestError(f"can't write results to `{results}`: no such folder, or not writable")


def run(options: argparse.Namespace) -> int:
    require_writable(options.results_file)
    print(f"Loading inputs from `{options.input_prompts}`...", flush=True)
    prompts = read_prompts(options.input_prompts) * options.iterations
    answers = [Answer(options.offset + index, prompt) for index, prompt in enumerate(prompts)]
    request = stream_options(options)
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    interrupted = False
    with Progress(request, len(answers), console, options.verbose) as progress:
        stream = PromptStream(request, answers, Callbacks(progress.on_text, progress.on_end))
        try:
            asyncio.run(stream.run())
        except KeyboardInterrupt:
            interrupted = True
    if stream.started_at_s is None:
        return INTERRUPTED  # nothing was sent, so the results file is kept
    print(f"Storing results into `{options.results_file}`...", flush=True)
    options.results_file.write_text(format_results(answers), encoding="utf-8")
    print(f"Total time for all requests: {stream.wall_s:.2f} seconds ({stream.wall_s * 1000:.2f} milliseconds)")
    print("\n".join([*format_summary(request, answers, stream.wall_s), *format_verdict(answers)]), flush=True)
    if interrupted:
        return INTERRUPTED
    return FAILED if any(answer.error is not None for answer in answers) else 0


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))
