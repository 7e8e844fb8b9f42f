"""Finding a model's best config.pbtxt by trying: Triton in this process, every setting under several loads."""
