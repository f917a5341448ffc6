"""Runs untrusted programs one after the other, each in a process of its own: the folder `sandbox` starts as a script.

`python -s -S -P FOLDER SETTINGS` with an empty environment. It uses the standard library alone, because every program
is a fork of it and can read its memory: there is nothing of ours in there, no expected output, no secret. It enters
namespaces, builds a root of read-only libraries (`isolation`) and waits for requests on a socket (`__main__`). Per
request it forks a child that gives up every right and runs one program on one input (`child`). The program's outputs
go to files in memory that belong to the parent, which compares them. The child is the first process of a pid namespace,
so whatever the program leaves behind ends with it.
"""
