"""The fault campaign: numbered records sent to real Apache Kafka while its brokers and its network
suffer. `make chaos`.
"""
