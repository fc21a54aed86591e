"""Measures holdfast beside other clients, in one run, against the same real nats-server.

    holdfast bench blob                            large blobs, small ones, `has`: some minutes
    holdfast bench blob --sync both                the same again with every write synced
    holdfast bench blob --memory                   also the peak memory of a worker and a client
    holdfast bench blob --blobs 100000             `has` on as many blobs as the promise names
    holdfast bench blob --node-modules DIR         nats.js too, from DIR/@nats-io
    holdfast bench blob --json > figures.json      every single figure
    holdfast bench snapshot /usr/share             snapshots of a copy of that tree
    holdfast bench snapshot DIR --large-file 2GiB  also one large file with scattered changes

A figure alone says little on a shared machine, so the clients take turns, in another order each
round, and what counts is the ratio within a round. Server, workers and each client are processes
of their own. Nothing here fails because a machine is slow: the report says what was promised, what
was measured, and whether that meets it.

Other clients: nats-py (always), natsrpy and natsio (``pip install 'holdfast[bench]'``), nats.js.
Other backup tools, where they are installed: restic, borg, tar with zstd.
"""
