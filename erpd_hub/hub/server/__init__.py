"""The embedded Hub: a small server that speaks the Hugging Face Hub's HTTP protocol on one machine.

Start it as `python -m erpd_hub.hub.server --root DIR --ready-file PATH --until-unused LOCKFILE`; `__main__` documents
the launching contract. Layers, each importing only those above it:

    errors, paths, objects      refusals, name rules, git object ids (pure)
    database, blobs, trees      sqlite, content-addressed bytes, shared tree objects
    repos, commits              repositories and their refs, history, edits
    accounts, signing, cards    who may do what, signed upload links, README headers
    call, routes_*, app         one request, its handlers, dispatch on the raw path
    lifecycle, __main__         locks, ready file, process

A commit is one sqlite transaction that runs after its blobs are durable, so a killed server never shows half of one.
Left out: Xet writes and multipart uploads (clients run with HF_HUB_DISABLE_XET=1), pull requests, Space runtimes,
garbage collection of unreferenced blobs and trees.
"""
