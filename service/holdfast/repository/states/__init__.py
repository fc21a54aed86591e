"""States: a log of commands and saves, by the record of each and the journal of all.

- save: the whole state, with the index of the last command that it includes.
- group: commands that were appended at once, one entry of the journal.
- journal: the stream of all logs; the entries of one log have a subject of their own.
- lineage: which log is meant; it is the same while the end of the log changes by appends alone.
"""
