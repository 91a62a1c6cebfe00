"""get_include(): another extension can be compiled against the .pxd files and headers that the
package ships.
"""

import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

import kafka_ext

LIBRDKAFKA = Path(__file__).parents[2] / "build/librdkafka/include"


def test_the_folder_has_what_it_promises():
    include = Path(kafka_ext.get_include())
    assert (include / "librdkafka.pxd").is_file()
    assert (include / "kafka_ext/message.h").is_file()
    assert (include / "kafka_ext/version_guard.h").is_file()


@pytest.mark.slow(6)
@pytest.mark.skipif(not LIBRDKAFKA.is_dir(), reason="librdkafka is not the bundled one")
def test_an_extension_that_cimports_it_compiles(tmp_path):
    Cython = pytest.importorskip("Cython")  # noqa: N806 - a module's name
    assert Cython
    source = tmp_path / "user.pyx"
    source.write_text(
        textwrap.dedent("""
        # cython: language_level=3
        from librdkafka cimport RD_KAFKA_RESP_ERR__QUEUE_FULL, rd_kafka_err2str, rd_kafka_resp_err_t

        def describe(int code):
            return rd_kafka_err2str(<rd_kafka_resp_err_t>code).decode()

        queue_full = <int>RD_KAFKA_RESP_ERR__QUEUE_FULL
    """)
    )
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", "-I", kafka_ext.get_include(), source],
        check=True,
        timeout=120,
    )
    compiler = sysconfig.get_config_var("CC").split()
    headers = [
        f"-I{sysconfig.get_path('include')}",
        f"-I{kafka_ext.get_include()}",
        f"-I{LIBRDKAFKA}",
    ]
    subprocess.run(
        [*compiler, "-fPIC", "-c", source.with_suffix(".c"), "-o", tmp_path / "user.o", *headers],
        check=True,
        timeout=120,
    )
    assert (tmp_path / "user.o").stat().st_size > 0
