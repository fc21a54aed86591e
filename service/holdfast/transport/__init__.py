"""NATS connection plumbing: what every speaker of NATS in holdfast shares."""
