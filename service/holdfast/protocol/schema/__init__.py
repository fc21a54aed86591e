"""The wire described for programs: JSON Schemas of the messages, and an AsyncAPI document."""
