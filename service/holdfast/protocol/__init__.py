"""The wire, version 1: what travels, under which subject, in which form. Computes only.

Messages and codes are for ever: a new field gets a default, and no field is renamed, retyped or
removed. Requests refuse fields they do not know (a typo should not pass); replies ignore them (a
peer may be newer).
"""
