"""Language models: vLLM replicas built on ray.serve.llm, with OpenAI's API and Triton's tensors as request formats."""
