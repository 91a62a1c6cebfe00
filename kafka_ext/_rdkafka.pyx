# cython: language_level=3, embedsignature=False, binding=True, freethreading_compatible=True
# cython: boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""librdkafka for Python: the one extension module of kafka_ext.

One file for each concern, in one translation unit, so that the hot path crosses no module border.
Layouts and C declarations stand in _rdkafka.pxd, so the files of core/ come in any order. The first
two run first at import: they define the Python classes that others derive from or take as defaults.

    core/client/     what any client needs: settings, errors, events, threads, waiting
    core/producer/   records, sending, reports, batches, transactions, asyncio
    core/            what kafka_ext.testing is made of
"""

cimport cython

cdef extern from "kafka_ext/main_interpreter.h":
    pass

include "core/client/errors.pyx"
include "core/producer/records.pyx"

include "core/client/build.pyx"
include "core/client/callbacks.pyx"
include "core/client/calls.pyx"
include "core/client/client.pyx"
include "core/client/config.pyx"
include "core/client/diagnosis.pyx"
include "core/client/life.pyx"
include "core/client/loop.pyx"
include "core/client/memory.pyx"
include "core/client/metadata.pyx"
include "core/client/secrets.pyx"
include "core/client/serving.pyx"
include "core/client/threads.pyx"
include "core/producer/aio.pyx"
include "core/producer/arrow.pyx"
include "core/producer/batch.pyx"
include "core/producer/batch_delivery.pyx"
include "core/producer/columns.pyx"
include "core/producer/delivery.pyx"
include "core/producer/integers.pyx"
include "core/producer/lines.pyx"
include "core/producer/message.pyx"
include "core/producer/producer.pyx"
include "core/producer/producer_client.pyx"
include "core/producer/table.pyx"
include "core/producer/topics.pyx"
include "core/producer/transactions.pyx"
include "core/admin.pyx"
include "core/consumer.pyx"
include "core/mock.pyx"
