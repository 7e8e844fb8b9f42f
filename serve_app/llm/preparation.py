"""What happens before an engine starts: files are fetched where they must be, and tokens stay where they are."""

from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Preparation(CallbackBase):  # type: ignore[misc]
    """ray.serve.llm copies tokens into the runtime environment of its tasks, which dashboard and logs show.

    Ray's workers have them from the process that started them, so the copy goes before it is used.
    """

    def __init__(self, *arguments: Any, fetch: bool, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.ctx.run_init_node = fetch  # a task that imports vLLM for ten seconds, and finds a folder that is there
        for environment in (self.ctx.runtime_env, self.llm_config.runtime_env):
            for token in TOKENS:
                ((environment or {}).get("env_vars") or {}).pop(token, None)
