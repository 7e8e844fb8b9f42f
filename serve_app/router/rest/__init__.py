"""Detection over REST, and what operators, readers and visitors ask over HTTP."""
