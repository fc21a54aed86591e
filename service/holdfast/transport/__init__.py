"""NATS connection plumbing: what every speaker of NATS in holdfast shares.

Why: docs/decisions.md, "A layer for NATS itself".
"""
