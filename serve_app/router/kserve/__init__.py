"""KServe v2, the Open Inference Protocol, as Triton speaks it: over HTTP and over gRPC."""
