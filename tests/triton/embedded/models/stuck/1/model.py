"""Never comes back from a request, and doesn't give the interpreter away either."""

import re


class TritonPythonModel:
    def execute(self, requests):
        # One call of C code that takes for ever and keeps the GIL.
        re.match(r"(a+)+$", "a" * 64 + "b")
