# What the parts of the extension share: class layouts, and every C function declared once. Cython
# reads this before the .pyx files, so their order in _rdkafka.pyx means nothing to the compiler.

cimport cython

include "core/client/client.pxd"
include "core/producer/producer.pxd"
include "core/cluster.pxd"
