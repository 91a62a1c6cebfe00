"""From send to callback: how long a record's report takes, in percentiles. `python -m
benchmarks.latency`.
"""
