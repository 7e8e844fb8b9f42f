"""Language models: vLLM replicas through ray.serve.llm, and what they are to OpenAI's and to Triton's clients."""
