"""Prompts to a language model over Triton's gRPC stream."""
