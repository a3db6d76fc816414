"""Signals while a run goes on: it ends, leaves nothing, and only then raises what the handler raised."""

import gc
import io
import signal
import subprocess
import sys
import threading
import time
import unittest
import weakref
from unittest import mock

import numpy
import torch

import qmill
from qmill import _native, progress
from support import FolderTest

RUN = """
import os, signal, sys, threading, time
import qmill
os.environ.setdefault("OMP_NUM_THREADS", "1")

def leave(*_):
    sys.exit(3)

def late(*_):
    raise TimeoutError("late")

signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGALRM, late)
before = set(threading.enumerate())
try:
    %s
except BaseException as error:
    # A thread that had not begun may still have to find out that it is not wanted.
    time.sleep(0.2)
    print(type(error).__name__, len(set(threading.enumerate()) - before))
"""
LONG = """qmill.convert(sys.argv[1], sys.argv[2], optimizer="learned_rounding", num_iter=100000, filter="none",
                  keep_part=False, progress=lambda state: None)"""


class Signals(FolderTest):
    def setUp(self):
        super().setUp()
        self.source = self.model(layers=6, rows=2048, columns=2048)
        self.output = self.folder / "o.safetensors"

    def started(self, body):
        process = subprocess.Popen([sys.executable, "-c", RUN % body, self.source, self.output],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def begun(self, process):
        for _ in range(600):
            if len(list(self.folder.iterdir())) > 1 or process.poll() is not None:
                return
            threading.Event().wait(0.1)

    def ended(self, process, expected):
        printed, errors = process.communicate(timeout=120)
        self.assertEqual(printed, expected, errors)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["model.safetensors"])

    def test_a_handler_that_leaves_ends_the_run(self):
        process = self.started(LONG)
        self.begun(process)
        process.send_signal(signal.SIGTERM)
        self.ended(process, "SystemExit 0\n")

    def test_an_alarm_ends_the_run(self):
        process = self.started(LONG)
        self.begun(process)
        process.send_signal(signal.SIGALRM)
        self.ended(process, "TimeoutError 0\n")

    def test_a_signal_while_the_thread_starts(self):
        # Before the thread exists, and when it exists already.
        hit = "signal.raise_signal(signal.SIGINT)"
        for hit in (f"{hit}; start(thread)", f"start(thread); {hit}"):
            with self.subTest(hit):
                process = self.started(f"""start = threading.Thread.start
    def interrupted(thread):
        {hit}
    threading.Thread.start = interrupted
    {LONG}""")
                self.ended(process, "KeyboardInterrupt 0\n")

    def test_a_signal_right_after_another(self):
        # Both are pending when Python looks: the second is raised while the first is handled.
        process = self.started(f"""start = threading.Thread.start
    def interrupted(thread):
        start(thread)
        mask = {{signal.SIGINT, signal.SIGALRM}}
        signal.pthread_sigmask(signal.SIG_BLOCK, mask)
        for number in mask:
            signal.pthread_kill(threading.get_ident(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, mask)
    threading.Thread.start = interrupted
    {LONG}""")
        self.ended(process, "KeyboardInterrupt 0\n")


class Waiting(unittest.TestCase):
    class Run:
        """A run that takes as long as three signals need to come, and does not care that it should end."""

        cancelled = ended = False

        def cancel(self):
            self.cancelled = True

        def __call__(self, *_):
            for number in (signal.SIGALRM, signal.SIGINT, signal.SIGINT):
                signal.pthread_kill(threading.main_thread().ident, number)
                time.sleep(0.05)
            self.ended = True

    def test_the_first_of_several_signals_is_raised_when_the_run_has_ended(self):
        def late(*_):
            raise TimeoutError("late")

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, late))
        run = self.Run()
        with self.assertRaisesRegex(TimeoutError, "late"):
            _native._Worker(run, "", {}, ()).result()
        self.assertEqual((run.cancelled, run.ended), (True, True))


class Threads(FolderTest):
    def test_a_model_that_is_collected_starts_no_thread(self):
        model = qmill.open_model(self.model())
        self.assertFalse(model._finalizer.atexit)
        handle = model._handle
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("a thread")):
            with mock.patch("sys.unraisablehook") as unraisable:
                del model
                gc.collect()
        unraisable.assert_not_called()
        with self.assertRaisesRegex(qmill.UsageError, "the model is closed"):
            _native.call("read_model_tensor", {"handle": handle, "name": "blocks.0.proj.weight"})

    def test_an_open_model_does_not_disturb_the_end_of_the_process(self):
        code = "import sys, qmill; model = qmill.open_model(sys.argv[1]); model.itself = model"
        done = subprocess.run([sys.executable, "-c", code, self.model()], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_a_process_without_standard_error(self):
        # A graphical program has none, and the shell may have closed it.
        model, output = self.model(), self.folder / "o.safetensors"
        code = "import sys; sys.stderr = None; import qmill; qmill.convert(*sys.argv[1:])"
        subprocess.run([sys.executable, "-c", code, model, output], check=True)
        self.assertTrue(output.exists())
        subprocess.run(f"'{sys.executable}' -c 'import sys, qmill; qmill.dequantize(*sys.argv[1:])' '{output}' "
                       f"'{self.folder}/plain.safetensors' 2>&-", shell=True, check=True)
        self.assertTrue((self.folder / "plain.safetensors").exists())

    def test_no_bar_on_a_stream_that_is_closed(self):
        stream = io.StringIO()
        stream.close()
        with mock.patch("sys.stderr", stream), progress.shown(None, "title") as callback:
            self.assertIsNone(callback)


class Memory(unittest.TestCase):
    def test_tensors_are_given_back_if_one_of_them_does_not_cross(self):
        class Broken(torch.Tensor):
            def __dlpack__(self, *_, **__):
                raise BufferError("broken")

        array = numpy.ones((4, 4), numpy.float32)
        memory = weakref.ref(array)
        tensors = [torch.from_numpy(array), torch.ones(4, 4).as_subclass(Broken)]
        with self.assertRaisesRegex(BufferError, "broken"):
            _native._Run(None)("quantize", {}, tensors)
        del array, tensors
        gc.collect()
        self.assertIsNone(memory())


if __name__ == "__main__":
    unittest.main()
