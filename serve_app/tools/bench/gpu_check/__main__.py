"""The process that works for the check, so that its end gives the GPU back and a crash of it takes no report along."""

from serve_app.tools.bench.gpu_check.worker import work_as_asked

if __name__ == "__main__":
    work_as_asked()
