"""The AWS account below the service: a cluster, its add-ons and a bucket, made step by step and taken away again."""
