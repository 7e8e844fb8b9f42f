"""What the service is compared with, and the service itself: each started for a comparison, and ended with it."""
