"""States: a log of commands and saves, by the record of each and the journal of all."""
