"""Triton in this process: the deployment, the engine facade, the model repository."""
