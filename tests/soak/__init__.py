"""A load of every kind of send, held for as long as asked, while memory, threads, descriptors and
counts are watched. `make soak`.
"""
