"""The gRPC service by the name under which configs name it, and messages that Serve's own proxy can pickle."""

import sys
from typing import Any

from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as messages

# The generated messages name these modules as their own, but there are none to import when Serve unpickles one.
sys.modules.setdefault("grpc_service_pb2", messages)
sys.modules.setdefault("model_config_pb2", model_config_pb2)


__all__ = ["add_to_server", "messages"]


def add_to_server(servicer: Any, server: Any) -> None:
    """For `grpc_options.grpc_servicer_functions`."""
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
