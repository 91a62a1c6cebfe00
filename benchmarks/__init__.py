"""How fast and how frugal kafka_ext is, beside other clients and plain C, on one broker in one run.
`python -m benchmarks --help`.
"""
