"""Prompts to a language model over Triton's gRPC stream, with the times that were really measured."""
