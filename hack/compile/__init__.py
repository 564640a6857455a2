"""The data plane compiled by mypyc: which modules, and how a tree, a wheel or the image gets them.

The sources stay plain, strictly typed Python; what is compiled is the same code. An installation from source
runs it uncompiled, and `nodeagent version` says which.
"""
