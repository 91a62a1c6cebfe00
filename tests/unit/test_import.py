"""What importing costs and does: little, nothing of the machine's, and only in the main interpreter."""

import re
import subprocess
import sys
import sysconfig
import time

import pytest


def run(program, *options):
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


ALL = "import kafka_ext; [getattr(kafka_ext, name) for name in kafka_ext.__all__]"
PRODUCER = "import kafka_ext; kafka_ext.KafkaProducer"


def test_what_takes_long_to_import_waits_until_it_is_used():
    loaded = run(f"import sys; sys.modules.pop('asyncio', None); {PRODUCER}; print(*sys.modules)").split()
    at_start = run("import sys; print(*sys.modules)").split()
    slow = {"asyncio", "concurrent.futures", "dataclasses", "difflib", "inspect", "json", "multiprocessing", "socket", "ssl", "subprocess"}
    assert slow & set(loaded) <= set(at_start)
    assert [name for name in loaded if name.startswith(("kafka_ext.cli", "kafka_ext.testing", "rich", "numpy", "pyarrow"))] == []


def test_importing_takes_less_than_asyncio_does():
    """The same machine at the same time is the measure: 30 ms where asyncio takes 40."""

    def seconds(program):
        start = time.perf_counter()
        run(program)
        return time.perf_counter() - start

    # The quickest of each is the one that was disturbed least.
    ours, theirs = (min(seconds(program) for _ in range(7)) for program in (PRODUCER, "import asyncio"))
    nothing = min(seconds("pass") for _ in range(7))
    assert ours - nothing < 1.3 * (theirs - nothing)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_starts_before_a_producer_does():
    count = "len(os.listdir('/proc/self/task'))"
    settings = "{'bootstrap.servers': '127.0.0.1:9'}"
    program = f"""
import os
{ALL}
kafka_ext.Properties({settings}), kafka_ext.ProducerRecord('topic', b'value')
before = {count}
producer = kafka_ext.KafkaProducer({settings})
print(before, {count} > 1)
producer.close(timeout=0)
"""
    assert run(program).split() == ["1", "True"]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="not a free-threaded interpreter")
def test_the_gil_stays_off():
    """A module that does not say it can do without would turn it on for the whole process, and Python would warn."""
    program = f"import sys; {ALL}; import kafka_ext.testing; print(sys._is_gil_enabled())"
    assert run(program, "-W", "error").strip() == "False"


SUB_INTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

def attempt(code, kind):
    try:
        other = interpreters.create(kind)       # "isolated", with a GIL of its own, or "legacy", as mod_wsgi makes them
    except TypeError:
        other = interpreters.create(isolated=kind == "isolated")
    failed = interpreters.run_string(other, code)
    if failed:
        raise AssertionError(failed)

code = '''
import kafka_ext
for name in ("KafkaProducer", "ProducerRecord"):
    try:
        getattr(kafka_ext, name)
    except ImportError as exc:
        print("refused:", exc, flush=True)
    else:
        print("imported", flush=True)
'''
"""
IN_SUB = "attempt(code, KIND)\n"
IN_MAIN = "import kafka_ext\nkafka_ext.KafkaProducer({'bootstrap.servers': '127.0.0.1:9'}).close(timeout=0)\nprint('main', flush=True)\n"


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
@pytest.mark.parametrize("order", [(IN_SUB, IN_MAIN, IN_SUB), (IN_MAIN, IN_SUB, IN_SUB)], ids=["first-there", "first-here"])
def test_a_sub_interpreter_is_refused_whatever_came_before(kind, order):
    lines = run(SUB_INTERPRETER + "".join(order).replace("KIND", repr(kind))).splitlines()
    refused = [line for line in lines if line.startswith("refused: ")]
    assert lines.count("main") == 1
    assert len(refused) == len(lines) - 1 == 4, lines
    assert all(re.search(r"only be imported in the main interpreter.*mod_wsgi", line) for line in refused), refused
