"""`scripts/llm_client`: the prompts of a file through a language model."""
