"""`scripts/load`: endurance load by Locust, with a web page. Locust patches sockets, so nothing else imports this."""
