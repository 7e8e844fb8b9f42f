"""What is seen of a service: its state and why it is so, told and waited for; its logs and its ports."""
