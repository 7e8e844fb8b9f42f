"""What a model takes, for requests that don't say it themselves."""

from typing import Any

from serve_app.router.plane import DataPlane


async def signature_of(plane: DataPlane, model: str, version: int) -> tuple[dict[str, Any], bool]:
    """The model's metadata, and whether the first dimension of its inputs is the batch."""
    metadata = await plane.metadata(model, version)
    config = await plane.config(model, version)
    return metadata, config.get("max_batch_size", 0) > 0
