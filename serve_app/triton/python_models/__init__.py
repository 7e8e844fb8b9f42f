"""The models of Triton's Python backend; a repository's model.py imports one of them."""
