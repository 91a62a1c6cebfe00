"""A fuzzer for the boundary between Python and Kafka: what arrives is what was meant, or the call
said what is wrong.

`strategies` makes arguments of every kind, each with what it means; `model` says what must come of
a call; `machine` makes random sequences of calls on every kind of producer and reads back what
arrived. `python -m tests.fuzz --minutes 60` runs it for long.
"""
