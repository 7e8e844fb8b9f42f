"""Load for Locust, which patches sockets for the whole process: nothing else imports this."""
