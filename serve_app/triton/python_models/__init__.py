"""What runs inside the Python backend's processes; a repository's model.py names one of these."""
