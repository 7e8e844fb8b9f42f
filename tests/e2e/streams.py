"""A bidirectional gRPC stream of a stock client, and what came back on it."""

import queue
from collections import defaultdict

import tritonclient.grpc as grpcclient

TIMEOUT_S = 60


class Stream:
    def __init__(self, address):
        self._answers = queue.Queue()
        self._client = grpcclient.InferenceServerClient(address)
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))

    def send(self, model, inputs, **options):
        self._client.async_stream_infer(model, inputs, enable_empty_final_response=True, **options)

    def collect(self, requests):
        """Results that have outputs, by request id in their order, until so many requests are done; and the errors."""
        answers, errors, done = defaultdict(list), [], 0
        while done < requests:
            result, error = self._answers.get(timeout=TIMEOUT_S)
            if error:
                errors.append(error.message())
                done += 1
                continue
            response = result.get_response()
            if response.outputs:
                answers[response.id].append(result)
            done += response.parameters["triton_final_response"].bool_param
        return answers, errors

    def close(self):
        self._client.stop_stream()
        self._client.close()
