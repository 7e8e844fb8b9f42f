"""`scripts/llm_client`: a file of prompts through a language model."""
