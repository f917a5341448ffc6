"""The embedded Hub: a small server that speaks the Hugging Face Hub's HTTP protocol on one machine.

Start it as `python -m erpd_hub.hub.server --root DIR --ready-file PATH --until-unused LOCKFILE`; `__main__` documents
the launching contract. Layers, each importing only those above or beside it:

    errors, paths, objects      refusals, name rules, git object ids (pure)
    json_text, ignoring         JSON of clients, .gitignore and .gitattributes (pure)
    remembered, spare           what was worked out once; room on a disk that fills up
    schema, seal, database      tables and their upgrades, hashes of whole files, connections
    blobs, trees, bodies        content-addressed bytes, shared tree objects, bodies of requests
    repos                       repositories and their refs
    accounts, accounts_file     who may do what
    possession, signing, cards  who may name a hash, signed upload links, README headers
    commits, rewriting          history, edits, taking files out of history
    pulls, collection_store     pull requests with their discussions, named lists of repositories
    xorbs, xet                  the Xet upload format, and what waits to become a blob
    call, paging, uploads       one request, pages of a listing, what every signed upload does
    safetensors, eval_results   headers of weights, results in .eval_results
    routes_*, pages, app        handlers, pages for people, dispatch on the raw path
    lifecycle, __main__         locks, ready file, process
    wal, fsck, gc               of a root without its server: checks, and removal of what nothing refers to

A commit is one sqlite transaction that runs after its blobs are durable, so a killed server never shows half of one.
Clients need no setting. Left out: Xet reads (files are downloaded plainly), gating, likes, webhooks, Space runtimes.
"""
