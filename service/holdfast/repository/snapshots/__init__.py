"""Snapshots of directories: made, read, restored, ended, removed.

- policy: which of an app's snapshots are kept; a hold keeps one from it.
- fence: the record of an app's last run of a policy; a run ends where another has begun.
- pending: of a snapshot that is being made, or a restore that is under way.

The words of the stored form are in `holdfast.archive`.
"""
