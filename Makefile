.PHONY: librdkafka
librdkafka:  ## the pinned librdkafka, static, in build/librdkafka
	@python3 wheels/librdkafka.py
