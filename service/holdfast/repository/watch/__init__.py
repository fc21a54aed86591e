"""Changes as they happen: the stores' changes, as events, for many watchers.

The events are derived from the records themselves: there is no second write that could be lost, and
a worker keeps nothing that another could not read.
"""
