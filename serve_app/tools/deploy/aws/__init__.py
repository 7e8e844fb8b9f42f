"""Install the service on AWS, from an empty account to a running scenario, and remove it again."""
