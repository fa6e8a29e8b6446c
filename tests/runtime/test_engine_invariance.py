"""What a text gets depends on the text alone, bit for bit. Oracle: the engine itself, one text and one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import engine_oracle as oracle
import numpy as np
import pytest
from engine_oracle import Form

from bitpress.errors import EngineError
from bitpress.runtime.engine import available_isas, describe_engine, hardware_threads, isa, library_path

# Keywords of tiny_model.
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"activation_range": "fp32"},
    "token": {"activation_range": "token"},
    "static": {"activation_range": "static"},
    "static, 4 bits": {"activation_range": "static", "activation_bits": 4},
    "two terms": {"form": Form("binary", 1, group_rows=1, terms=2), "word_form": Form("binary", 1, terms=2)},
    "fp32, heads of 5": {"activation_range": "fp32", "head_size": 5},
    "token, heads of 27": {"activation_range": "token", "head_size": 27},
    "token, embeddings of 13": {"activation_range": "token", "embedding_size": 13, "head": "dense_gelu"},
    "binary": {"activation_range": "binary"},
    "binary, embeddings of 13": {"activation_range": "binary", "embedding_size": 13, "head": "dense_relu"},
    "binary, all": {"activation_range": "binary", "attention": "all"},
    "elastic": {"activation_range": "binary", "attention": "softmax", "hidden_act": "relu"},
    "elastic, heads of 27": {
        "activation_range": "binary",
        "attention": "softmax",
        "hidden_act": "relu",
        "head_size": 27,
    },
}
LENGTHS = [7, 1, 40, 13, 40, 2, 28]


def one_by_one(model: oracle.TinyModel, ids: list[list[int]], types: list[list[int]]) -> np.ndarray:
    with model.engine(threads=1) as engine:
        return np.concatenate([engine.forward([row], [kind]) for row, kind in zip(ids, types, strict=True)])


@pytest.mark.parametrize("form", FORMS)
def test_logits_do_not_depend_on_the_batch(form: str) -> None:
    model = oracle.tiny_model(1, **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS)
    alone = one_by_one(model, ids, types)
    rng = np.random.default_rng(2)
    with model.engine() as engine:
        for size in (2, 3, len(ids), 100, 300):  # the last: several groups of sequences in one call
            chosen = rng.integers(0, len(ids), size)
            found = engine.forward([ids[i] for i in chosen], [types[i] for i in chosen])
            assert np.array_equal(found, alone[chosen])


@pytest.mark.parametrize("form", FORMS)
def test_hidden_states_do_not_depend_on_the_batch(form: str) -> None:
    model = oracle.tiny_model(1, **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS * 20)  # more tokens than one group
    with model.engine() as engine:
        together = engine.hidden_states(ids, types)
        alone = [engine.hidden_states([row], [kind]) for row, kind in zip(ids, types, strict=True)]
    assert np.array_equal(together, np.concatenate(alone, axis=1))


@pytest.mark.parametrize("form", FORMS)
def test_logits_do_not_depend_on_the_number_of_threads(form: str) -> None:
    model = oracle.tiny_model(3, **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS)
    alone = one_by_one(model, ids, types)
    for threads in (1, 2, 3, 5, 16):
        with model.engine(threads) as engine:
            assert engine.threads == threads
            assert all(np.array_equal(engine.forward(ids, types), alone) for _ in range(5))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_blocks_of_rows_do_not_touch_each_other(form: str, threads: int) -> None:
    """Many rows run through whole chains of steps block by block, at the same time; the codes of a block's two widths
    (hidden and intermediate, far apart here) must not meet those of another block."""
    model = oracle.tiny_model(7, **FORMS[form], hidden=66, heads=3, intermediate=600, layers=3)
    ids, types = oracle.random_batch(model, [40, 33, 40] * 8)
    alone = one_by_one(model, ids, types)
    with model.engine(threads) as engine:
        assert all(np.array_equal(engine.forward(ids, types), alone) for _ in range(10))


@pytest.mark.parametrize("form", FORMS)
def test_asking_for_hidden_states_changes_no_logit(form: str) -> None:
    """Without them the engine skips what only the other tokens' last states need."""
    model = oracle.tiny_model(4, **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine() as engine:
        assert np.array_equal(engine._run(ids, types, keep_hidden_states=True)[0], engine.forward(ids, types))


def test_sizes_may_change_from_call_to_call() -> None:
    model = oracle.tiny_model(5)
    ids, types = oracle.random_batch(model, LENGTHS)
    alone = one_by_one(model, ids, types)
    with model.engine() as engine:
        for count in (1, 7, 2, 5, 1, 7):
            assert np.array_equal(engine.forward(ids[:count], types[:count]), alone[:count])


@pytest.mark.parametrize("threads", [1, 2])
def test_many_python_threads_share_one_engine(threads: int) -> None:
    model = oracle.tiny_model(6)
    ids, types = oracle.random_batch(model, LENGTHS)
    alone = one_by_one(model, ids, types)
    wrong: list[int] = []
    with model.engine(threads) as engine:

        def call(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(30):
                chosen = rng.integers(0, len(ids), rng.integers(1, 30))
                found = engine.forward([ids[i] for i in chosen], [types[i] for i in chosen])
                if not np.array_equal(found, alone[chosen]):
                    wrong.append(seed)

        callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == []


def test_close_during_calls_of_other_threads() -> None:
    model = oracle.tiny_model(6)
    ids, types = oracle.random_batch(model, LENGTHS)
    engine = model.engine()
    refused = threading.Event()

    def call() -> None:
        try:
            while True:
                engine.forward(ids, types)
        except EngineError:
            refused.set()

    caller = threading.Thread(target=call)
    caller.start()
    engine.close()
    caller.join(timeout=30)
    assert refused.is_set()


# --- processes: each script prints the logits of one model as hex ---

SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import engine_oracle as oracle
from engine_oracle import Form
model = oracle.tiny_model(11, **{form!r})
ids, types = oracle.random_batch(model, [7, 1, 40, 13])
engine = model.engine({threads})
"""
PRINT = "print(engine.isa, engine.forward(ids, types).tobytes().hex())\n"


def run(body: str, form: str = "token", threads: int | None = None, **env: str) -> str:
    """Output of a process that runs ``body`` after SCRIPT; fails with its error text."""
    start = SCRIPT.format(here=str(Path(__file__).parent), form=FORMS[form], threads=threads)
    done = subprocess.run(
        [sys.executable, "-c", start + body], env=os.environ | env, capture_output=True, text=True, timeout=120
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout.strip()


@pytest.mark.parametrize("form", FORMS)
def test_every_isa_gives_the_same_bits(form: str) -> None:
    outputs = {name: run(PRINT, form, BITPRESS_ISA=name).split() for name in available_isas()}
    assert all(name == found for name, (found, _) in outputs.items())
    assert len({logits for _, logits in outputs.values()}) == 1


@pytest.mark.parametrize(
    "form",
    [
        Form("uniform", 8, symmetric=True, group_rows=1),
        Form("uniform", 4, group_rows=1, group_cols=32),
        Form("uniform", 3, symmetric=True, group_rows=1, group_cols=64),
        Form("codebook", 2),
        Form("codebook", 3, outliers=3),
        Form("binary", 1),
        Form("binary", 1, group_rows=1, terms=2),
    ],
    ids=str,
)
def test_every_isa_gives_the_same_bits_for_packed_weights(form: oracle.Form) -> None:
    word = form if form.scheme == "binary" or form.outliers else Form("uniform", form.bits, group_rows=2)
    body = f"""
model = oracle.tiny_model(11, form={form}, word_form={word}, hidden=70, heads=5, intermediate=131)
engine = model.engine()
"""
    outputs = {name: run(body + PRINT, BITPRESS_ISA=name).split() for name in available_isas()}
    assert len({logits for _, logits in outputs.values()}) == 1


@pytest.mark.parametrize("form", ["fp32", "token", "elastic"])
def test_every_isa_gives_the_same_bits_for_every_token(form: str) -> None:
    body = f"""
model = oracle.tiny_model(11, head="tokens", **{FORMS[form]})
engine = model.engine()
"""
    outputs = {name: run(body + PRINT, BITPRESS_ISA=name).split() for name in available_isas()}
    assert len({logits for _, logits in outputs.values()}) == 1


def test_unknown_isa_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"EngineError: .*sparc.*reference"):
        run(PRINT, BITPRESS_ISA="sparc")


def test_isa_is_one_of_the_available() -> None:
    assert "reference" in available_isas()
    assert isa() in available_isas()


def test_forked_child_runs_the_engine() -> None:
    """The child has none of its parent's worker threads; it must neither hang nor change a bit."""
    body = """
import os, signal
before = engine.forward(ids, types).tobytes()
for generation in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = all(engine.forward(ids, types).tobytes() == before for _ in range(20))
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if engine.forward(ids, types).tobytes() == before else 3)
        os._exit(os.waitpid(grandchild, 0)[1] or (0 if same else 4))
    assert engine.forward(ids, types).tobytes() == before
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""
    assert run(body, threads=2) == "done"


def test_fork_while_other_threads_are_calling() -> None:
    body = """
import os, signal, threading
expected = engine.forward(ids, types).tobytes()
stop = threading.Event()
def call():
    while not stop.is_set():
        engine.forward(ids, types)
callers = [threading.Thread(target=call) for _ in range(3)]
for caller in callers:
    caller.start()
status = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if engine.forward(ids, types).tobytes() == expected else 3)
    status |= os.waitpid(child, 0)[1]
stop.set()
for caller in callers:
    caller.join()
print(status)
"""
    assert run(body, threads=2) == "0"


def test_multiprocessing_pool_by_fork() -> None:
    body = """
import multiprocessing
expected = engine.forward(ids, types).tobytes()
def work(_):
    return engine.forward(ids, types).tobytes() == expected
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(all(pool.map(work, range(24))))
"""
    assert run(body, threads=2) == "True"


def test_engine_needs_no_torch() -> None:
    body = PRINT + "assert not {'torch', 'transformers', 'pydantic', 'yaml'} & set(sys.modules)\n"
    assert run(body)


def test_threads_from_the_environment() -> None:
    assert run("print(engine.threads)", BITPRESS_THREADS="3") == "3"
    assert run("print(engine.threads)", threads=2, BITPRESS_THREADS="3") == "2"
    assert run("print(engine.threads)", BITPRESS_THREADS="") == str(hardware_threads())
    for text in ("0", "two", "257"):
        with pytest.raises(AssertionError, match=r"BITPRESS_THREADS is .*, allowed are 1 to 256"):
            run("", BITPRESS_THREADS=text)


def test_hardware_threads_counts_the_processors_of_this_process() -> None:
    assert hardware_threads() == len(os.sched_getaffinity(0))


def test_describe_engine() -> None:
    found = describe_engine()
    assert found["error"] is None
    assert (found["library"], found["isa"]) == (str(library_path()), isa())
    assert found["available_isas"] == available_isas()
