# cython: language_level=3, embedsignature=False, binding=True, freethreading_compatible=True
# cython: boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""librdkafka for Python: the one extension module of kafka_ext.

A file an object, put together into one translation unit so that the hot path is never a call through a border:

    memory -> errors -> secrets -> config -> records -> message -> handle -> producer -> delivery      a record's way, from top to bottom
    metadata, transactions                                                        what else a producer asks of a cluster
    aio                                                                           the same, served by an event loop
    admin, consumer, mock                                                         what kafka_ext.testing is made of
    info                                                                          how all this was built
"""

cdef extern from "kafka_ext/main_interpreter.h":
    pass

include "core/memory.pyx"
include "core/errors.pyx"
include "core/secrets.pyx"
include "core/config.pyx"
include "core/records.pyx"
include "core/message.pyx"
include "core/columns.pyx"
include "core/threads.pyx"
include "core/handle.pyx"
include "core/producer.pyx"
include "core/batch.pyx"
include "core/delivery.pyx"
include "core/causes.pyx"
include "core/metadata.pyx"
include "core/transactions.pyx"
include "core/aio.pyx"
include "core/admin.pyx"
include "core/consumer.pyx"
include "core/mock.pyx"
include "core/info.pyx"
