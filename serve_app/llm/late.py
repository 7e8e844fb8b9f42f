"""A language model's deployment until its replica has begun: vLLM is imported there, after the process has given way.

The import takes ten seconds of a processor, which a router that starts at the same time would have to share.
"""

from typing import TYPE_CHECKING, Any

from ray import cloudpickle

from serve_app.settings.languages import Priority
from serve_app.telemetry.replica import begin_replica

if TYPE_CHECKING:
    from ray.serve.llm import LLMConfig


class LateLanguageModel:
    """Holds a `LanguageModel`; reading its configuration imports vLLM too, so that comes as bytes."""

    async def __init__(self, priority: Priority, config: bytes) -> None:  # type: ignore[misc]
        begin_replica(engine=priority)
        from serve_app.llm.replica import LanguageModel

        model = object.__new__(LanguageModel)
        self._model = model
        await LanguageModel.__init__(model, cloudpickle.loads(config))

    def __getattr__(self, name: str) -> Any:
        """The router's calls, and Serve's: health, autoscaling."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    async def __del__(self) -> None:
        """Serve calls this once no request is in flight any more."""
        if "_model" in vars(self):
            await self._model.__del__()

    @classmethod
    def get_deployment_options(cls, config: "LLMConfig") -> Any:
        """Of ray.serve.llm's builder."""
        from ray.serve.llm.deployment import LLMServer

        return LLMServer.get_deployment_options(config)
